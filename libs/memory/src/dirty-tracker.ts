import type * as Effect from "effect/Effect";
import type { TrackerError } from "./errors.ts";
import type { RamBlock } from "./ram-block.ts";

/** How writes of a running guest are noticed. `auto` at the operator's side picks the first of these that the host and the guest allow. */
export type TrackerKind = "userfaultfd" | "soft-dirty" | "content";

/** Called with each run of pages found dirty; runs of one sync never overlap and come in any order of blocks. */
export type DirtyRun = (block: number, firstPage: number, pages: number) => void;

/** What one sync cost. */
export interface SyncReport {
  readonly dirtyPages: number;
  readonly durationMs: number;
}

/**
 * Notices which pages a guest writes, while it runs.
 *
 * Invariant (R3): a write that happens after `sync` has reported a page is reported again by the next sync, and bytes
 * read from `readFrom` after the report are at least as new as the report. The first sync reports every page.
 * `found` is called while the scan goes on, so that sending can start before it ends.
 *
 * Trap: bytes must be read from `readFrom`, not from the guest's own blocks. For `content` it is the shadow copy: what was
 * compared is then what is sent, and a page that changes A -> B -> A between two syncs cannot leave B at the destination.
 */
export interface DirtyTracker {
  readonly kind: TrackerKind;
  readonly readFrom: ReadonlyArray<RamBlock>;
  readonly sync: (found: DirtyRun) => Effect.Effect<SyncReport, TrackerError>;
}

/** What a tracker must know of the guest's process: where each block is mapped in it. */
export interface TrackedProcess {
  readonly pid: number;
  readonly blocks: ReadonlyArray<RamBlock & { readonly address: bigint }>;
  /** True when the process registered its RAM with userfaultfd (write-protect, async) itself. */
  readonly userfaultfd: boolean;
}
