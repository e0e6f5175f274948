/** What a demo needs of this machine, looked at before anything is started. */
import { freeBytes, probeHost, SHARED_MEMORY_DIRECTORY } from "@godwit/host";
import { GodwitError, type Parameters } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type { Report } from "../reporting/report.ts";
import { formatBytes } from "../terminal/format.ts";

/** Sockets, logs and device state beside the memory, bytes. */
const BESIDE_BYTES = 8 * 1024 ** 2;

const failed = (code: GodwitError["code"], reason: string): GodwitError =>
  new GodwitError({ code, actor: "cli", step: "look for room", reason });

export interface RoomWanted {
  readonly directory: string;
  readonly memoryBytes: number;
  readonly tracker: Parameters["dirty-tracker"];
  /** A builtin guest registers its memory with userfaultfd, if that lies on a tmpfs; for a QEMU nobody does. */
  readonly driver: "builtin" | "qemu";
}

/**
 * Looks whether source, destination and, where it is needed, the content tracker's shadow of the guest's memory would fit. Says in
 * one line what root would add. Fails with `no-space` and what would fit, or with `not-supported` when no memory file can be made.
 */
export const lookForRoom = (
  { directory, memoryBytes, tracker, driver }: RoomWanted,
  report: Report,
): Effect.Effect<void, GodwitError> =>
  Effect.gen(function* () {
    const { free, host } = yield* Effect.try({
      try: () => ({ free: freeBytes(directory), host: probeHost() }),
      catch: (cause) => failed("not-supported", cause instanceof Error ? cause.message : String(cause)),
    });
    const registered = driver === "builtin" && directory.startsWith(SHARED_MEMORY_DIRECTORY);
    const bits = (registered && host.userfaultfd._tag === "Works") || host.softDirty._tag === "Works";
    const copies = tracker === "content" || (tracker === "auto" && !bits) ? 3 : 2;
    const needed = copies * memoryBytes + BESIDE_BYTES;
    if (free < needed) {
      const fits = Math.floor((free - BESIDE_BYTES) / copies / 1024 ** 2);
      const what = copies === 3 ? "source, destination and the content tracker's shadow" : "source and destination";
      return yield* failed(
        "no-space",
        `${directory} has ${formatBytes(free)} free, and a guest of ${formatBytes(memoryBytes)} needs ${formatBytes(needed)} there (${what}); ` +
          (fits >= 1 ? `--memory ${fits}MiB would fit` : "make it larger (docker run --shm-size=2g)") +
          ", or name another directory with --guest-dir",
      );
    }
    if (host.rootWouldAdd.length > 0) report.note(`not root; root would add: ${host.rootWouldAdd.join("; ")}`);
  });
