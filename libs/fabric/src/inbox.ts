import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Queue from "effect/Queue";
import type { FabricError } from "./errors.ts";

/**
 * The seam between a network callback, which must not wait and must not throw, and a fiber that takes when it likes.
 * Holds at most `capacity` items.
 */
export interface Inbox<A> {
  /** False: dropped, and counted. */
  readonly offer: (item: A) => boolean;
  /** What is there can still be taken, then takers fail. */
  readonly fail: (error: FabricError) => void;
  /** Waits for at least one, then takes all that are there, in order. */
  readonly takeAll: Effect.Effect<ReadonlyArray<A>, FabricError>;
  readonly dropped: () => number;
}

/** Full: what comes on top is dropped. For messages: what is there came first, and acknowledging it frees credits. */
export const makeInbox = <A>(capacity: number): Effect.Effect<Inbox<A>> =>
  Effect.map(Queue.dropping<A, FabricError>(capacity), inboxOn);

/** Full: the oldest is forgotten. For news of which the latest counts. */
export const makeNewsInbox = <A>(capacity: number): Effect.Effect<Inbox<A>> =>
  Effect.map(Queue.sliding<A, FabricError>(capacity), inboxOn);

const inboxOn = <A>(queue: Queue.Queue<A, FabricError>): Inbox<A> => {
  let dropped = 0;
  return {
    offer: (item) => {
      if (Queue.offerUnsafe(queue, item)) return true;
      dropped++;
      return false;
    },
    fail: (error) => {
      Queue.failCauseUnsafe(queue, Cause.fail(error));
    },
    takeAll: Queue.takeAll(queue),
    dropped: () => dropped,
  };
};
