/**
 * What the loader and its paging thread say to each other: one job goes there, reports of how far it is come back, and one end.
 * Nothing here imports effect: the thread would start later for it.
 */
import type { LatencySummary } from "./decisions/latencies.ts";

/** One RAMBlock, and where its pages are. */
export interface PagingBlock {
  readonly name: string;
  readonly pages: number;
  /** In the guest's process. */
  readonly address: bigint;
  /** The file of its memory, and where the block begins there. */
  readonly ramFd: number;
  readonly ramOffset: number;
  /** The words of a bitmap: pages that the checkpoint holds. The others are zero. */
  readonly present: Uint32Array;
  readonly pagesOffset: number;
  /** What each page must sum up to; null: nobody knows. */
  readonly sums: Uint32Array | null;
}

/** What goes to the thread. The descriptors are of this process, and stay open until its end has come back. */
export interface PagingJob {
  readonly uffd: number;
  readonly checkpoint: number;
  readonly blocks: ReadonlyArray<PagingBlock>;
  /** For pages that nobody waits for; 0: as fast as it goes. */
  readonly restBytesPerSecond: number;
  /** One Int32 cell: STOP, once it shall end. */
  readonly stop: SharedArrayBuffer;
}
export const STOP = 1;

export interface PagingProgress {
  readonly readBytes: number;
  /** Of pages with content. */
  readonly leftBytes: number;
  /** Pages that were waited for. */
  readonly requests: number;
  readonly latency: Pick<LatencySummary, "p50" | "p99" | "max">;
}

export type PagingEnd =
  | { readonly _tag: "AllThere" }
  | { readonly _tag: "Stopped" }
  /** The guest has ended, or waits for pages no more. */
  | { readonly _tag: "GuestGone"; readonly reason: string }
  /** Bytes that are not what was saved; none of them were placed. */
  | { readonly _tag: "Damaged"; readonly reason: string }
  /** Something that may pass: the checkpoint cannot be read, or memory is short. The guest waits. */
  | { readonly _tag: "Stuck"; readonly reason: string };

export type PagingReport = ({ readonly _tag: "Progress" } & PagingProgress) | PagingEnd;
