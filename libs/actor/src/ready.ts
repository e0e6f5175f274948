import { flushCompileCache } from "node:module";
import { Fabric, type Member } from "@godwit/fabric";
import * as Effect from "effect/Effect";
import { type Need, serveHealth } from "./health.ts";
import { natsNeeds } from "./needs.ts";
import type { Settings } from "./settings.ts";

/**
 * Says that the actor is there, and how it is to those who ask (`needs`: what its job takes besides NATS), until its scope ends. What was compiled
 * on the way here is written to the cache before that (20 ms the first time, then nothing): nobody waits for this process yet, and
 * one that is killed writes nothing at its end.
 */
export const announceReady = Effect.fnUntraced(function* (
  { runtimeDirectory }: Pick<Settings, "runtimeDirectory">,
  member: Member,
  who: string,
  needs: ReadonlyArray<Need>,
) {
  const fabric = yield* Fabric;
  flushCompileCache();
  yield* serveHealth(runtimeDirectory, member, [...(yield* natsNeeds), ...needs]);
  yield* fabric.announce(member);
  yield* Effect.logInfo(`${who} ready`);
});
