import { flushCompileCache } from "node:module";
import { Fabric, type Member } from "@godwit/fabric";
import * as Effect from "effect/Effect";

/**
 * Says that the actor is there, until its scope ends. What was compiled on the way here is written to the cache before that (20 ms
 * the first time, then nothing): nobody waits for this process yet, and one that is killed writes nothing at its end.
 */
export const announceReady = Effect.fnUntraced(function* (member: Member, who: string) {
  const fabric = yield* Fabric;
  flushCompileCache();
  yield* fabric.announce(member);
  yield* Effect.logInfo(`${who} ready`);
});
