/** A guest under watch by an actor that works with it: why it has ended is what its failing steps fail with. */
import { type ErrorCode, GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import type * as Scope from "effect/Scope";
import type { Guest, GuestEnding } from "./guest.ts";

/**
 * A guest that dies takes its memory, its files and its monitor with it in no fixed order: a step may fail before the end is
 * known. So much later it is, ms; a step that failed for another reason is told of that much later.
 */
const LAST_WORD_MS = 250;

const CODES: Readonly<Record<GuestEnding["how"], ErrorCode>> = { shutdown: "guest-shutdown", crashed: "guest-failed" };

/** Who watches, and for which guest; both are named in the errors. */
export interface Watcher {
  readonly guest: string;
  readonly actor: string;
  readonly side: "source" | "destination";
}

export interface GuestWatch {
  /** Returns once the guest has ended, with the failure that this is for a migration. */
  readonly ended: Effect.Effect<GodwitError>;
  /** A step of the guest; when it fails, and the guest has ended, it fails with that. */
  readonly explain: <A>(step: Effect.Effect<A, GodwitError>) => Effect.Effect<A, GodwitError>;
}

/** Watches until the scope ends. */
export const watchGuest = (guest: Guest, watcher: Watcher): Effect.Effect<GuestWatch, never, Scope.Scope> =>
  Effect.map(Effect.forkScoped(guest.ending), (fiber) => {
    const ended = Effect.map(Fiber.join(fiber), (ending) => endedError(watcher, ending));
    return {
      ended,
      explain: (step) =>
        Effect.catch(step, (error) =>
          Effect.raceFirst(Effect.flatMap(ended, Effect.fail), Effect.delay(Effect.fail(error), LAST_WORD_MS)),
        ),
    };
  });

const endedError = ({ guest, actor, side }: Watcher, { how, reason }: GuestEnding): GodwitError =>
  new GodwitError({
    code: CODES[how],
    actor,
    side,
    step: "watch the guest",
    reason: `guest ${guest} has ended at the ${side}: ${reason}`,
  });
