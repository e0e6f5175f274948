import * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import type * as Exit from "effect/Exit";
import * as Scheduler from "effect/Scheduler";
import { actorClock } from "./sim-clock.ts";
import type { SimNetwork } from "./simulation/index.ts";

/** Virtual time after which a program counts as hanging, ms: actors with heartbeats never run out of events. */
const VIRTUAL_TIME_MS = 3_600_000;

/**
 * Runs `program` to its end in the network's time, synchronously: fibers are steps of the network like messages, so a run
 * follows from the seed alone. Anything that really waits (a promise, a socket) is outside this world and never resumes.
 *
 * Throws when nothing can happen any more, or VIRTUAL_TIME_MS have passed, and the program has not ended.
 */
export function simulate<A, E>(network: SimNetwork, program: Effect.Effect<A, E>): Exit.Exit<A, E> {
  const scheduler = new Scheduler.MixedScheduler("async", (task) => network.after(0, task));
  const fiber = Effect.runFork(
    program.pipe(
      Effect.provideService(Clock.Clock, actorClock(network, null)),
      Effect.provideService(Scheduler.Scheduler, scheduler),
    ),
    { scheduler },
  );
  const endMs = network.now() + VIRTUAL_TIME_MS;
  for (;;) {
    const exit = fiber.pollUnsafe();
    if (exit !== undefined) return exit;
    if (network.now() > endMs) throw new Error(`the program has not ended after ${VIRTUAL_TIME_MS} ms of virtual time`);
    if (!network.step())
      throw new Error(`nothing can happen any more at ${network.now()} ms, and the program has not ended`);
  }
}
