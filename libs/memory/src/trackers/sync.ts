import * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import * as Semaphore from "effect/Semaphore";
import type { DirtyRun, DirtyTracker } from "../dirty-tracker.ts";
import type { TrackerError } from "../errors.ts";

/**
 * One pass of a tracker over all blocks. `everything`: every page is to be reported, whatever is known of it, and tracked from
 * there on; `changes`: what was written since the last pass. Each page is reported after it is tracked again, never before.
 */
export type Scan = (demand: "everything" | "changes", found: DirtyRun) => Effect.Effect<void, TrackerError>;

const NANOS_PER_MS = 1e6;

/**
 * The `sync` of a tracker from its scan: one at a time, counted and timed.
 *
 * The first one demands everything. So does the one after a sync that did not end well (failed, interrupted, or its `found`
 * threw): what that one cleared and did not report is known to nobody any more.
 */
export const makeSync = (scan: Scan): DirtyTracker["sync"] => {
  const turn = Semaphore.makeUnsafe(1);
  let demand: "everything" | "changes" = "everything";
  const sync = Effect.fnUntraced(function* (found: DirtyRun) {
    const start = yield* Clock.currentTimeNanos;
    const demanded = demand;
    demand = "everything";
    let dirtyPages = 0;
    yield* scan(demanded, (block, firstPage, pages) => {
      dirtyPages += pages;
      found(block, firstPage, pages);
    });
    demand = "changes";
    const end = yield* Clock.currentTimeNanos;
    return { dirtyPages, durationMs: Number(end - start) / NANOS_PER_MS };
  });
  return (found) => turn.withPermit(sync(found));
};
