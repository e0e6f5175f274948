/**
 * Guest pages that devices wrote by DMA, which no tracker of the host's processors sees: the devices log them (device dirty logging), and
 * the RAM sender merges them into RAM's dirty bitmap at each sync. Reporting clears a device's log, so what was reported for a sync is
 * kept until the next one shows that it has arrived.
 */
import * as Bitmap from "@godwit/memory/bitmap";
import { PAGE_BYTES, type VfioAnswer } from "@godwit/protocol";
import type { IovaRange } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import * as Semaphore from "effect/Semaphore";

/** Runs in one answer: a control message has its limit. */
const RUNS_MAX = 4096;

/** The guest's RAMBlocks as devices see them: one behind the other from I/O virtual address 0, in the order of the offer. */
export const layoutOf = (blockBytes: ReadonlyArray<number>): ReadonlyArray<IovaRange> => {
  let iova = 0;
  return blockBytes.map((length) => {
    const range = { iova, length };
    iova += length;
    return range;
  });
};

export type DirtyPagesAnswer = Extract<VfioAnswer, { _tag: "DirtyPages" }>;

export interface DirtyPages<E> {
  /** What devices wrote before this sync, from page `from` on, counted through all ranges. */
  readonly ask: (sync: number, from: number) => Effect.Effect<DirtyPagesAnswer, E>;
}

/** `report` asks the devices: for each, one bitmap for each range; what they have reported they forget. */
export const makeDirtyPages = <E>(
  layout: ReadonlyArray<IovaRange>,
  report: Effect.Effect<ReadonlyArray<ReadonlyArray<Uint8Array>>, E>,
): DirtyPages<E> => {
  const pages = layout.map(({ length }) => Bitmap.make(length / PAGE_BYTES));
  // A question that is asked again while the devices are still being asked must find what they reported, not ask them for the rest.
  const one = Semaphore.makeUnsafe(1);
  let told = -1;
  const begin = (sync: number, logs: ReadonlyArray<ReadonlyArray<Uint8Array>>): void => {
    told = sync;
    for (const bitmap of pages) Bitmap.clearAll(bitmap);
    for (const ranges of logs) for (const [block, bits] of ranges.entries()) orBits(pages[block], bits);
  };
  // A copy that comes late, from a sync before, must not make the devices forget what the present one needs; nobody reads its answer.
  const ask: DirtyPages<E>["ask"] = (sync, from) =>
    one.withPermit(
      Effect.suspend(() => (sync > told ? Effect.map(report, (logs) => begin(sync, logs)) : Effect.void)).pipe(
        Effect.map(() => answerOf(pages, from)),
      ),
    );
  return { ask };
};

const answerOf = (pages: ReadonlyArray<Bitmap.Bitmap>, from: number): DirtyPagesAnswer => {
  const runs: number[] = [];
  let base = 0;
  for (const [block, bitmap] of pages.entries()) {
    for (let at = Math.max(0, from - base); at < bitmap.pageCount; ) {
      const run = Bitmap.nextRun(bitmap, at, bitmap.pageCount);
      if (run === null) break;
      if (runs.length >= 3 * RUNS_MAX) return { _tag: "DirtyPages", runs, next: base + run.first };
      runs.push(block, run.first, run.count);
      at = run.first + run.count;
    }
    base += bitmap.pageCount;
  }
  return { _tag: "DirtyPages", runs, next: null };
};

/** A device's bitmap may be longer than the range, up to whole words: what lies beyond is nobody's page. */
const orBits = (bitmap: Bitmap.Bitmap | undefined, bits: Uint8Array): void => {
  if (bitmap === undefined) return;
  for (let byte = 0; byte < bits.length; byte++) {
    if (bits[byte] === 0) continue;
    for (let bit = 0; bit < 8; bit++) {
      const page = byte * 8 + bit;
      if ((bits[byte]! & (1 << bit)) !== 0 && page < bitmap.pageCount) Bitmap.setRange(bitmap, page, 1);
    }
  }
};
