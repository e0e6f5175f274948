import type { Bitmap } from "@godwit/memory/bitmap";
import type { GodwitError } from "@godwit/protocol";
import type * as Effect from "effect/Effect";

/** A thread of the guest has touched a page that is not there, and waits for it. */
export interface Touch {
  /** Index among the blocks that were named. */
  readonly block: number;
  readonly page: number;
  /** The waiting thread's number; 0: not known. */
  readonly thread: number;
}

/** How long a guest has waited for pages, ms. */
export interface Blocktime {
  /** While all of its vCPUs waited. */
  readonly allMs: number;
  readonly vcpusMs: ReadonlyArray<number>;
}

/**
 * Memory of a guest that runs, or may run, while pages of it are missing (postcopy). What holds its threads back belongs to the guest's
 * own process, so whoever uses this may die at any moment: the guest waits for the next one.
 */
export interface MissingMemory {
  /** Threads that run the guest, once its device state is loaded; 0: not known. */
  readonly vcpus: Effect.Effect<number, GodwitError>;
  /** Tells of every touch, as it comes; those that were told to a predecessor are told again. Fails once the guest is gone. */
  readonly touches: (touched: (touch: Touch) => void) => Effect.Effect<never, GodwitError>;
  /**
   * Puts pages in place, whole host pages, and lets whoever waits for them go on. Pages that are there already stay as they are. Throws
   * HostError: ESRCH or ENOENT once the guest is gone, or waits for nothing any more.
   */
  readonly copy: (block: number, firstPage: number, bytes: Uint8Array) => void;
  /** The same with zeros. */
  readonly zero: (block: number, firstPage: number, pages: number) => void;
  /**
   * Where `copy` returns before a page is in place: returns once at most so many bytes are on their way there. A page that is waited for
   * comes behind all of them.
   */
  readonly placed: (leftBytesMax: number) => Effect.Effect<void>;
  /**
   * Where `copy` returns before a page is in place, and somebody else has placed pages before: those that were not placed since the guest
   * began to wait. Of what was missing then they are missing still, whatever that one has noted.
   */
  readonly notPlaced?: ReadonlyArray<Bitmap>;
  /** How long its threads waited, where the guest's own process has counted it, once `end` has returned; null: it has not. Absent: nobody but who hears of touches can tell. */
  readonly blocktime?: () => Blocktime | null;
  /** All pages are there: what was not placed is zeros, and no touch is waited for any more. */
  readonly end: Effect.Effect<void, GodwitError>;
  /** The missing pages will never come: the guest has failed, and goes no further. */
  readonly giveUp: (reason: string) => Effect.Effect<void, GodwitError>;
}
