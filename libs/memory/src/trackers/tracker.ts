import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { DirtyTracker, TrackedProcess, TrackerKind } from "../dirty-tracker.ts";
import { TrackerError } from "../errors.ts";
import { openContentTracker } from "./content.ts";
import { openSoftDirtyTracker } from "./soft-dirty.ts";
import { openUserfaultfdTracker } from "./userfaultfd.ts";

/** Trackers from the cheapest to the one that works everywhere. */
export const TRACKERS_BY_PREFERENCE: ReadonlyArray<TrackerKind> = ["userfaultfd", "soft-dirty", "content"];

export interface TrackerOptions {
  /** `auto`: the first of TRACKERS_BY_PREFERENCE that works for this process on this host. */
  readonly kind: TrackerKind | "auto";
  readonly process: TrackedProcess;
  /** Where `content` puts its shadow copy: a directory on a tmpfs with as much room as the guest has memory. */
  readonly shadowDirectory: string;
}

/**
 * Opens a dirty tracker for the memory of a process; the scope's end closes it and leaves nothing behind.
 * Fails with the tracker's reason, for `auto` with the reasons of all of them.
 */
export const openTracker = (options: TrackerOptions): Effect.Effect<DirtyTracker, TrackerError, Scope.Scope> =>
  options.kind === "auto" ? openBest(options) : openKind(options.kind, options);

const openKind = (kind: TrackerKind, { process, shadowDirectory }: TrackerOptions) => {
  switch (kind) {
    case "userfaultfd":
      return openUserfaultfdTracker(process);
    case "soft-dirty":
      return openSoftDirtyTracker(process);
    case "content":
      return openContentTracker(process.blocks, shadowDirectory);
  }
};

const openBest = Effect.fnUntraced(function* (options: TrackerOptions) {
  const reasons: string[] = [];
  for (const kind of TRACKERS_BY_PREFERENCE) {
    const opened = yield* openKind(kind, options).pipe(
      Effect.catch((error) => {
        reasons.push(error.message);
        return Effect.succeed(null);
      }),
    );
    if (opened !== null) return opened;
  }
  return yield* new TrackerError({ kind: "auto", operation: "open", reason: reasons.join("; ") });
});
