import * as Effect from "effect/Effect";
import type { TrackerKind } from "../dirty-tracker.ts";
import type { TrackerError } from "../errors.ts";
import { PAGE_BYTES } from "../ram-block.ts";
import { startWriter } from "../testing/writer.ts";
import { openTracker } from "./tracker.ts";

/** What syncs of a tracker cost, ms for each GiB of guest memory. */
export interface ScanCost {
  readonly kind: TrackerKind;
  readonly bytes: number;
  /** The first sync, which reports every page; all pages hold something. */
  readonly firstMsPerGiB: number;
  /** Nothing was written: the best of CLEAN_SYNCS. */
  readonly cleanMsPerGiB: number;
  /** Every page was written. */
  readonly allDirtyMsPerGiB: number;
  /** Every second page was written, the most runs there can be. */
  readonly scatteredMsPerGiB: number;
}

const CLEAN_SYNCS = 3;
const GIB = 2 ** 30;

/** Measures a tracker on a real process with `bytes` of memory. Takes twice that much of /dev/shm for `content`. */
export const scanCost = (kind: TrackerKind, bytes: number): Effect.Effect<ScanCost, TrackerError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const pages = Math.floor(bytes / PAGE_BYTES);
      const { process, directory, tell } = yield* startWriter({
        blockPages: [pages],
        userfaultfd: kind === "userfaultfd",
      });
      const fill = (value: number) => tell({ _tag: "Fill", firstPage: 0, pages, value });
      yield* fill(1);
      const tracker = yield* openTracker({ kind, process, shadowDirectory: directory });
      const sync = Effect.map(
        tracker.sync(() => {}),
        ({ durationMs }) => (durationMs * GIB) / (pages * PAGE_BYTES),
      );
      const firstMsPerGiB = yield* sync;
      const clean: number[] = [];
      for (let round = 0; round < CLEAN_SYNCS; round++) clean.push(yield* sync);
      yield* fill(2);
      const allDirtyMsPerGiB = yield* sync;
      yield* tell({ _tag: "Scatter", stride: 2, value: 3 });
      const scatteredMsPerGiB = yield* sync;
      return { kind, bytes, firstMsPerGiB, cleanMsPerGiB: Math.min(...clean), allDirtyMsPerGiB, scatteredMsPerGiB };
    }),
  );
