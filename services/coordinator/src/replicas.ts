/** Which coordinators there are, and taking over from those that are gone. */
import { Fabric, SILENT_MS } from "@godwit/fabric";
import * as Effect from "effect/Effect";
import * as Latch from "effect/Latch";

export const ACTOR = "coordinator";

/** A round that could not look at everything is done again after this, ms. */
const INCOMPLETE_AGAIN_MS = 250;
/** A round without a reason, ms: for an owner that was gone before anybody here had heard of it. */
const ROUND_EVERY_MS = 10_000;

/**
 * Calls `round` once after the start, when everybody who lives has had time to be heard; whenever a coordinator goes; and again
 * until it says that it was complete.
 */
export const watchReplicas = Effect.fnUntraced(function* (
  self: string,
  round: (isAlive: (owner: string) => boolean) => Effect.Effect<"complete" | "incomplete">,
) {
  const fabric = yield* Fabric;
  const alive = new Set<string>([self]);
  const someoneHasGone = yield* Latch.make();
  const news = yield* fabric.watch({ role: ACTOR });
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.gen(function* () {
        const changes = yield* news.takeAll;
        for (const { _tag, member } of changes) {
          if (_tag === "Up") alive.add(member.incarnation);
          else alive.delete(member.incarnation);
        }
        alive.add(self);
        if (changes.some(({ _tag }) => _tag === "Down")) yield* someoneHasGone.open;
      }),
    ),
  );
  yield* Effect.forkScoped(
    Effect.gen(function* () {
      yield* Effect.sleep(SILENT_MS);
      while (true) {
        yield* someoneHasGone.close;
        const outcome = yield* round((owner) => alive.has(owner));
        const pauseMs = outcome === "complete" ? ROUND_EVERY_MS : INCOMPLETE_AGAIN_MS;
        yield* Effect.raceFirst(someoneHasGone.await, Effect.sleep(pauseMs));
      }
    }),
  );
});
