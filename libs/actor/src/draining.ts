/** What an actor does before it ends, when it is told to: it ends what would otherwise stand half done until somebody else notices. */
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";

/** How long an end may be put off, ms: longer than a switchover takes (300 ms and some), shorter than supervisors wait (3 s; engines 10 s). */
export const DRAIN_MS = 2_500;
/** Between two looks, ms: nobody but whoever has asked for the end waits for it. */
const LOOK_MS = 10;

/**
 * To be called when the actor is ready: its scope's end then waits until `isBusy` says no, while everything that was set up before goes
 * on working, or until DRAIN_MS have passed; what is left then is left as by a crash.
 */
export const drainAtEnd = (isBusy: () => boolean): Effect.Effect<void, never, Scope.Scope> =>
  Effect.addFinalizer(() =>
    Effect.suspend(() => {
      if (!isBusy()) return Effect.void;
      const idle = Effect.repeat(Effect.sync(isBusy), { while: (busy) => busy, schedule: Schedule.spaced(LOOK_MS) });
      return Effect.logInfo("ending the switchover first").pipe(
        Effect.andThen(idle),
        Effect.timeoutOrElse({
          duration: DRAIN_MS,
          orElse: () =>
            Effect.logWarning(
              `the switchover has not ended, or was told to no coordinator, within ${DRAIN_MS} ms; it is left to whoever comes next`,
            ),
        }),
        Effect.asVoid,
      );
    }),
  );
