import type { Bitmap } from "../bitmap.ts";
import { PAGE_BYTES, pageCount, type RamBlock } from "../ram-block.ts";

/** Pages of a chunk, the piece that a thread takes at a time: 8 MiB, 1 ms of work, and whole words of the bitmap, so that no two threads change one word. */
export const CHUNK_PAGES = 2048;
/** Pages that are read and compared at once: 256 KiB stays in the processor's cache between the reading and the comparing. */
export const BATCH_PAGES = 64;
/** Reports of chunks (16 KiB at worst) that wait for the main thread before the pool pauses: they bound its memory. */
export const REPORTS_WAITING_MAX = 64;

/** Words of the control array that all threads of a pool share. */
export const CONTROL = { NEXT_CHUNK: 0, STOP: 1, REPORTS_WAITING: 2, WORDS: 3 } as const;

/** A block, its shadow, and which pages the shadow holds (all others are holes in it, and zeros in the guest). */
export interface ShadowedBlock {
  readonly block: RamBlock;
  readonly shadowPath: string;
  readonly present: Bitmap;
}

export interface Chunk {
  readonly block: number;
  readonly firstPage: number;
  readonly pages: number;
}

export interface ContentWorkerData {
  readonly blocks: ReadonlyArray<ShadowedBlock>;
  readonly chunks: ReadonlyArray<Chunk>;
  readonly control: Int32Array;
}

/** Scan until no chunk is left. */
export interface ScanOrder {
  readonly demand: "everything" | "changes";
}

/** What a thread is told: scan, or let go of all files and end. */
export type ContentOrder = ScanOrder | "end";

/** `runs`: pairs of (first page, pages). `Done` comes once for each order, after the last of its runs, also after a failure. */
export type ContentReport =
  | { readonly _tag: "Runs"; readonly block: number; readonly runs: Uint32Array }
  | { readonly _tag: "Failed"; readonly reason: string }
  | { readonly _tag: "Done" };

/** Cuts blocks into chunks. */
export const chunksOf = (blocks: ReadonlyArray<RamBlock>): ReadonlyArray<Chunk> =>
  blocks.flatMap((block, index) => {
    const pages = pageCount(block);
    return Array.from({ length: Math.ceil(pages / CHUNK_PAGES) }, (_, chunk) => {
      const firstPage = chunk * CHUNK_PAGES;
      return { block: index, firstPage, pages: Math.min(CHUNK_PAGES, pages - firstPage) };
    });
  });

export const BATCH_BYTES = BATCH_PAGES * PAGE_BYTES;
