/** Keeps a node's actors running: whoever exits is declared gone at once, and started again. */
import type { Settings } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import * as Effect from "effect/Effect";
import { type Child, type ChildSpec, type LogTarget, startChild } from "./actor-child.ts";

/** A process that dies again and again is started after 0.1, 0.2 ... s, at most so long, ms. */
const RESTART_DELAY_MAX_MS = 2000;
/** A life longer than this counts as a success, and the next death is restarted at once, ms. */
const LONG_LIFE_MS = 5000;

/**
 * A multifd worker that has died is started so much later while others of its node run, ms: they have its channels, and its start
 * takes a core for 0.2 s just when the switchover may need it.
 */
const POOL_RESTART_MS = 500;

/** How long after its death an actor is started again, ms. `deaths`: its short lives in a row. */
export const restartDelayMs = (deaths: number, othersRun: boolean): number => {
  const again = deaths <= 1 ? 0 : Math.min(RESTART_DELAY_MAX_MS, 100 * 2 ** (deaths - 2));
  return othersRun ? Math.max(again, POOL_RESTART_MS) : again;
};

/** Runs the actor for ever; ending the scope stops it orderly. */
export const supervise = Effect.fnUntraced(function* (
  spec: ChildSpec,
  settings: Settings,
  options: {
    readonly log: LogTarget;
    readonly started: (child: Child) => void;
    /** Ids of the actors that run and share its work (multifd workers); `supervise` keeps its own there. Default: it is alone. */
    readonly pool?: Set<string>;
  },
): Effect.fn.Return<never, never, Fabric> {
  const fabric = yield* Fabric;
  const { pool = new Set() } = options;
  let deaths = 0;
  while (true) {
    const startedAt = Date.now();
    yield* Effect.acquireUseRelease(
      Effect.sync(() => startChild(spec, settings, options.log)),
      (child) =>
        Effect.gen(function* () {
          options.started(child);
          pool.add(spec.id);
          const why = yield* child.exited;
          pool.delete(spec.id);
          fabric.declareExited(child.member);
          yield* Effect.logWarning(`${spec.role} ${spec.id} (pid ${child.pid}) exited: ${why}; it is started again`);
        }),
      (child) => child.stop,
    );
    deaths = Date.now() - startedAt > LONG_LIFE_MS ? 0 : deaths + 1;
    yield* Effect.sleep(restartDelayMs(deaths, pool.size > 0));
  }
});
