/**
 * Capability `xbzrle`: which pages the workers keep as they send them, and of which the destination is known to have what is kept.
 *
 *     slot:   free --planned--> under way --item acknowledged, sent once--> held --planned--> under way ...
 *
 * The cache is QEMU's: a page has one slot that it may be in, and takes it from another page that was not sent for some rounds. It is used
 * from the second round on, since all of memory, sent once, would only push out what is dirtied again; from the first one where it has a
 * slot for every page.
 *
 * Trap: all this is a guess that saves bytes. A worker that slept may write a slot long after its item went to another one; what makes a delta right is
 * the checksum of its base alone, which the destination compares with its memory.
 */
import type { Ledger } from "@godwit/multifd";
import {
  NO_SLOT,
  NO_XBZRLE,
  PAGE_BYTES,
  type Parameters,
  type XbzrleCacheInfo,
  type XbzrleCount,
  type XbzrleItem,
} from "@godwit/protocol";

/** A page keeps its slot against others for so many rounds after it was sent last, as in QEMU (CACHED_PAGE_LIFETIME). */
const LIFETIME_ROUNDS = 2;
const FREE = -1;

export interface Xbzrle {
  readonly slots: number;
  /** What is sent before this round is not kept. */
  readonly firstRound: number;
  /** Pages are counted through all blocks: of each block its first one. */
  readonly firstPages: ReadonlyArray<number>;
  /** Of each slot the page that is in it, or FREE; the round in which it was sent last; and 1 where the destination has acknowledged that. */
  readonly pageOf: Float64Array;
  readonly roundOf: Uint32Array;
  readonly held: Uint8Array;
  /** Pages of later rounds, and those of them whose slot was not held. */
  lookups: number;
  misses: number;
  /** As acknowledged. */
  count: XbzrleCount;
}

/** What a source knows of its guest: pages of each block. */
interface Memory {
  readonly parameters: Parameters;
  readonly blockPages: ReadonlyArray<number>;
}

/** Slots of the cache: no more than `xbzrle-cache-size` allows, and no more than the guest can use. */
export const slotsOf = ({ parameters, blockPages }: Memory): number => {
  const pages = blockPages.reduce((sum, count) => sum + count, 0);
  return Math.min(parameters["xbzrle-cache-size"] / PAGE_BYTES, 2 ** Math.ceil(Math.log2(Math.max(1, pages))));
};

export const make = (memory: Memory): Xbzrle => {
  const firstPages: number[] = [];
  let pages = 0;
  for (const count of memory.blockPages) {
    firstPages.push(pages);
    pages += count;
  }
  const slots = slotsOf(memory);
  return {
    slots,
    firstRound: slots >= pages ? 1 : 2,
    firstPages,
    pageOf: new Float64Array(slots).fill(FREE),
    roundOf: new Uint32Array(slots),
    held: new Uint8Array(slots),
    lookups: 0,
    misses: 0,
    count: NO_XBZRLE,
  };
};

/**
 * What the worker that gets `item` is told; null: its pages go whole, and are not kept. That is what becomes of items that are sent again, and of
 * repairs: what the destination holds of their pages is what is in doubt.
 */
export const plan = (xbzrle: Xbzrle, ledger: Ledger.Ledger, item: Ledger.Item): XbzrleItem | null => {
  const { work } = item;
  if (work.kind !== "pages" || ledger.round < xbzrle.firstRound) return null;
  if (item.attempts > 1 || ledger.repairing.has(item.item)) return null;
  const { pageOf, roundOf, held } = xbzrle;
  const slots = new Uint32Array(work.pages);
  const bases = new Uint8Array((work.pages + 7) >>> 3);
  eachPage(xbzrle, work, (page, slot, index) => {
    const isHeld = pageOf[slot] === page && held[slot] === 1;
    // In the first round nothing can be.
    if (ledger.round > 1) {
      xbzrle.lookups++;
      if (!isHeld) xbzrle.misses++;
    }
    const isTaken = pageOf[slot] !== FREE && pageOf[slot] !== page && ledger.round - roundOf[slot]! < LIFETIME_ROUNDS;
    slots[index] = isTaken ? NO_SLOT : slot;
    if (isTaken) return;
    if (isHeld) bases[index >>> 3]! |= 1 << (index & 7);
    pageOf[slot] = page;
    roundOf[slot] = ledger.round;
    held[slot] = 0;
  });
  return { slots, held: bases };
};

/** The destination has applied an item. Which of its copies, nobody knows: only of one that was sent once it is known what it has. */
export const applied = (xbzrle: Xbzrle, ledger: Ledger.Ledger, { work, attempts }: Ledger.Item): void => {
  if (work.kind !== "pages" || attempts > 1) return;
  eachPage(xbzrle, work, (page, slot) => {
    if (xbzrle.pageOf[slot] === page && xbzrle.roundOf[slot] === ledger.round) xbzrle.held[slot] = 1;
  });
};

const eachPage = (
  { slots, firstPages }: Xbzrle,
  { block, runs }: Ledger.PagesWork,
  each: (page: number, slot: number, index: number) => void,
): void => {
  let index = 0;
  for (let r = 0; r < runs.length; r += 2) {
    const first = firstPages[block]! + runs[r]!;
    for (let n = 0; n < runs[r + 1]!; n++, index++) each(first + n, (first + n) % slots, index);
  }
};

/** Counts what an acknowledgement says, `part` of which was not counted before. */
export const note = (xbzrle: Xbzrle, said: XbzrleCount, part: number): void => {
  const { pages, bytes, overflow } = xbzrle.count;
  xbzrle.count = {
    pages: pages + Math.round(said.pages * part),
    bytes: bytes + Math.round(said.bytes * part),
    overflow: overflow + Math.round(said.overflow * part),
  };
};

export const infoOf = ({ slots, lookups, misses, count }: Xbzrle): XbzrleCacheInfo => ({
  "cache-size": slots * PAGE_BYTES,
  bytes: count.bytes,
  pages: count.pages,
  "cache-miss": misses,
  "cache-miss-rate": lookups === 0 ? 0 : misses / lookups,
  "encoding-rate": count.bytes === 0 ? 0 : (count.pages * PAGE_BYTES) / count.bytes,
  overflow: count.overflow,
});
