/**
 * At most one actor of a role works for a node's guests. A supervisor that was killed leaves its actors behind, and the one that follows
 * starts others beside them: two senders of one guest would let it go on behind each other's back, and NATS cannot hold the hands
 * of a process that sleeps (R7). The kernel can: it gives the lock away only when its holder is gone.
 */
import { closeSync, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { tryLockFile } from "@godwit/host";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { Settings } from "./settings.ts";

/** Between two tries, ms: a predecessor that is being killed is gone within a few. */
const AGAIN_MS = 100;

/** Waits until no other process holds the role on this node; holds it as long as the scope. Dies with what the file system says. */
export const holdHost = Effect.fnUntraced(function* (
  settings: Pick<Settings, "runtimeDirectory">,
  role: string,
): Effect.fn.Return<void, never, Scope.Scope> {
  const fd = yield* Effect.acquireRelease(
    Effect.sync(() => {
      mkdirSync(settings.runtimeDirectory, { recursive: true, mode: 0o700 });
      return openSync(join(settings.runtimeDirectory, `${role}.lock`), "a", 0o600);
    }),
    (open) => Effect.sync(() => closeSync(open)),
  );
  let told = false;
  while (!tryLockFile(fd)) {
    if (!told) yield* Effect.logWarning(`another ${role} of this node is still there; waiting until it is gone`);
    told = true;
    yield* Effect.sleep(AGAIN_MS);
  }
});
