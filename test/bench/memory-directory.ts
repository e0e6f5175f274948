/** A folder for the memory of a testbed's guests: in /dev/shm, or, where that is too small for a sparse guest, a tmpfs of its own. */
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, statfsSync } from "node:fs";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

const SHM = "/dev/shm";

/** `roomBytes`: what the files in it may add up to, holes included. It goes with the scope. To mount one takes root. */
export const openMemoryDirectory = (name: string, roomBytes: number): Effect.Effect<string, Error, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const path = `${SHM}/${name}`;
        mkdirSync(path, { mode: 0o700 });
        const { bavail, bsize } = statfsSync(SHM);
        const isMounted = bavail * bsize < roomBytes;
        if (isMounted) execFileSync("mount", ["-t", "tmpfs", "-o", `size=${roomBytes},mode=700`, "godwit-bench", path]);
        return { path, isMounted };
      },
      catch: (cause) => new Error(`no folder for ${roomBytes} bytes of memory: ${String(cause)}`),
    }),
    ({ path, isMounted }) =>
      Effect.sync(() => {
        if (isMounted) execFileSync("umount", ["-l", path]);
        rmSync(path, { recursive: true, force: true });
      }),
  ).pipe(Effect.map(({ path }) => path));
