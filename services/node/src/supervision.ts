/** Keeps a node's actors running: whoever exits is declared gone at once, and started again. */
import type { Settings } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import * as Effect from "effect/Effect";
import { type Child, type ChildSpec, type LogTarget, startChild } from "./actor-child.ts";

/** The first restart is at once; a process that dies again and again is started after 0.1, 0.2 ... s, at most so long, ms. */
const RESTART_DELAY_MAX_MS = 2000;
/** A life longer than this counts as a success, and the next death is restarted at once, ms. */
const LONG_LIFE_MS = 5000;

/** Runs the actor for ever; ending the scope stops it orderly. */
export const supervise = Effect.fnUntraced(function* (
  spec: ChildSpec,
  settings: Settings,
  options: { readonly log: LogTarget; readonly started: (child: Child) => void },
): Effect.fn.Return<never, never, Fabric> {
  const fabric = yield* Fabric;
  let deaths = 0;
  while (true) {
    const startedAt = Date.now();
    yield* Effect.acquireUseRelease(
      Effect.sync(() => startChild(spec, settings, options.log)),
      (child) =>
        Effect.gen(function* () {
          options.started(child);
          const why = yield* child.exited;
          fabric.declareExited(child.member);
          yield* Effect.logWarning(`${spec.role} ${spec.id} (pid ${child.pid}) exited: ${why}; it is started again`);
        }),
      (child) => child.stop,
    );
    deaths = Date.now() - startedAt > LONG_LIFE_MS ? 0 : deaths + 1;
    yield* Effect.sleep(Math.min(RESTART_DELAY_MAX_MS, deaths <= 1 ? 0 : 100 * 2 ** (deaths - 2)));
  }
});
