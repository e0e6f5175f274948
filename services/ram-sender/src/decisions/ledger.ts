/**
 * The list of work not yet acknowledged: what makes the sender, and nobody else, responsible for every page (R1).
 *
 *     found --> todo (1 bit per page) --take--> in flight (an item with its channel) --applied--> gone
 *                 ^                                  |
 *                 |                                  +-- channel lost, or late --> again --take--> in flight
 *                 +---- next round begins -----------+
 *
 * A page leaves this list only by an acknowledgement of its item in its round. Beginning a round puts everything that is
 * still in flight back into `todo`: round r+1 holds what is dirty and what of round r is not acknowledged (R2).
 *
 * Mutable on purpose, and owned by one state: at 1 GiB/s a copy per step would cost more than the pages.
 */
import * as Bitmap from "@godwit/memory/bitmap";
import { PACKET_PAGES_MAX, PAGE_BYTES } from "@godwit/protocol";

export interface PagesWork {
  readonly kind: "pages";
  readonly block: number;
  readonly runs: Uint32Array;
  readonly pages: number;
}
export interface SliceWork {
  readonly kind: "slice";
  readonly offset: number;
  readonly bytes: number;
}
export type Work = PagesWork | SliceWork;

/** An item that a channel has, or had: `channel` is null while it waits to be handed out again. */
export interface Item {
  readonly item: number;
  readonly work: Work;
  readonly bytes: number;
  channel: number | null;
  channelEpoch: number;
  /** When it was handed out first, and last. */
  readonly firstSentAt: number;
  sentAt: number;
  attempts: number;
}

export interface Ledger {
  readonly itemPagesMax: number;
  round: number;
  nextItem: number;
  readonly todo: ReadonlyArray<Bitmap.Bitmap>;
  todoPages: number;
  /** Where the next cut begins. */
  block: number;
  page: number;
  readonly slices: SliceWork[];
  /** All items of this round that were handed out and not acknowledged. */
  readonly outstanding: Map<number, Item>;
  /** Those of them that wait to be handed out again, in order. */
  readonly again: Item[];
  outstandingBytes: number;
  resentItems: number;
}

/** `itemPagesMax`: pages of one item, at most PACKET_PAGES_MAX; fewer where the server's `max_payload` is small. */
export const make = (pagesOfBlocks: ReadonlyArray<number>, itemPagesMax: number = PACKET_PAGES_MAX): Ledger => ({
  itemPagesMax,
  round: 0,
  nextItem: 0,
  todo: pagesOfBlocks.map((pages) => Bitmap.make(pages)),
  todoPages: 0,
  block: 0,
  page: 0,
  slices: [],
  outstanding: new Map(),
  again: [],
  outstandingBytes: 0,
  resentItems: 0,
});

/** Begins the next round; nothing of the old one is forgotten. Device state belongs to the last round and must not be pending yet. */
export const beginRound = (ledger: Ledger): void => {
  for (const { work } of ledger.outstanding.values()) {
    if (work.kind === "slice") throw new Error("a round began after the device state was handed out");
    for (let r = 0; r < work.runs.length; r += 2) found(ledger, work.block, work.runs[r]!, work.runs[r + 1]!);
  }
  ledger.outstanding.clear();
  ledger.again.length = 0;
  ledger.outstandingBytes = 0;
  ledger.round++;
  ledger.nextItem = 0;
  ledger.block = 0;
  ledger.page = 0;
};

/** Notes pages that this round must send. */
export const found = (ledger: Ledger, block: number, firstPage: number, pages: number): void => {
  ledger.todoPages += Bitmap.setRange(ledger.todo[block]!, firstPage, pages);
};

/** Cuts the device state into slices for the running (last) round. */
export const addDeviceState = (ledger: Ledger, bytes: number): void => {
  const sliceBytes = ledger.itemPagesMax * PAGE_BYTES;
  for (let offset = 0; offset < bytes; offset += sliceBytes) {
    ledger.slices.push({ kind: "slice", offset, bytes: Math.min(sliceBytes, bytes - offset) });
  }
};

interface Place {
  readonly block: number;
  readonly page: number;
}
const START: Place = { block: 0, page: 0 };
const END: Place = { block: Number.POSITIVE_INFINITY, page: 0 };

/** Finds the next cut in [from, to): at most `itemPagesMax` pages of one block. The place is where the one after it begins. */
const cut = (ledger: Ledger, from: Place, to: Place): ({ readonly work: PagesWork } & Place) | null => {
  let at = from.page;
  for (let b = from.block; b < ledger.todo.length && b <= to.block; b++, at = 0) {
    const limit = b === to.block ? to.page : Number.POSITIVE_INFINITY;
    const runs: number[] = [];
    let pages = 0;
    while (pages < ledger.itemPagesMax) {
      const run = Bitmap.nextRun(ledger.todo[b]!, at, ledger.itemPagesMax - pages);
      if (run === null || run.first >= limit) break;
      const count = Math.min(run.count, limit - run.first);
      runs.push(run.first, count);
      pages += count;
      at = run.first + count;
    }
    if (pages > 0)
      return { work: { kind: "pages", block: b, runs: Uint32Array.from(runs), pages }, block: b, page: at };
  }
  return null;
};

const cutsIn = (ledger: Ledger, from: Place, to: Place): number => {
  let cuts = 0;
  for (let next = cut(ledger, from, to); next !== null; next = cut(ledger, next, to)) cuts++;
  return cuts;
};

/** How many items the rest of this round will be cut into, those already cut included: what the manifest promises. */
export const itemsOfRound = (ledger: Ledger): number => {
  const here = { block: ledger.block, page: ledger.page };
  // As they are taken: from here to the end, then what was found behind.
  return ledger.nextItem + ledger.slices.length + cutsIn(ledger, here, END) + cutsIn(ledger, START, here);
};

/** Takes the next item to hand out on `channel`; items that were handed out before go first. `null`: nothing is left to hand out. */
export const take = (
  ledger: Ledger,
  lane: { readonly channel: number; readonly epoch: number },
  now: number,
): Item | null => {
  let waiting = ledger.again.shift();
  // An acknowledgement may have come from the first copy while the item waited.
  while (waiting !== undefined && !ledger.outstanding.has(waiting.item)) waiting = ledger.again.shift();
  if (waiting !== undefined) {
    waiting.channel = lane.channel;
    waiting.channelEpoch = lane.epoch;
    waiting.sentAt = now;
    waiting.attempts++;
    ledger.resentItems++;
    return waiting;
  }
  const work = takeSlice(ledger) ?? takePages(ledger);
  if (work === null) return null;
  const bytes = work.kind === "slice" ? work.bytes : work.pages * PAGE_BYTES;
  const item: Item = {
    item: ledger.nextItem++,
    work,
    bytes,
    channel: lane.channel,
    channelEpoch: lane.epoch,
    firstSentAt: now,
    sentAt: now,
    attempts: 1,
  };
  ledger.outstanding.set(item.item, item);
  ledger.outstandingBytes += bytes;
  return item;
};

const takeSlice = (ledger: Ledger): SliceWork | null => ledger.slices.shift() ?? null;

const takePages = (ledger: Ledger): PagesWork | null => {
  if (ledger.todoPages === 0) return null;
  // A scan that spreads over threads finds pages behind the cut as well.
  const next = cut(ledger, ledger, END) ?? cut(ledger, START, END);
  if (next === null) return null;
  const { runs, block, pages } = next.work;
  for (let r = 0; r < runs.length; r += 2) Bitmap.clearRange(ledger.todo[block]!, runs[r]!, runs[r + 1]!);
  ledger.todoPages -= pages;
  ledger.block = next.block;
  ledger.page = next.page;
  return next.work;
};

/** Retires an item: the destination has applied it. Returns it, or null for one that is gone already. */
export const applied = (ledger: Ledger, item: number): Item | null => {
  const entry = ledger.outstanding.get(item);
  if (entry === undefined) return null;
  ledger.outstanding.delete(item);
  ledger.outstandingBytes -= entry.bytes;
  return entry;
};

/** The item's channel failed it: it waits to be handed out again. */
export const sendAgain = (ledger: Ledger, entry: Item): void => {
  if (entry.channel === null) return;
  entry.channel = null;
  ledger.again.push(entry);
};

/** Items that a channel has and that were sent before `before` (scaled up with each attempt, so that a slow path is not flooded). */
export const overdue = (ledger: Ledger, now: number, afterMs: number): Item[] => {
  const late: Item[] = [];
  for (const entry of ledger.outstanding.values()) {
    if (entry.channel !== null && now - entry.sentAt >= afterMs * 2 ** (entry.attempts - 1)) late.push(entry);
  }
  return late;
};

/** Something waits to be handed out, or to be handed out again. */
export const hasWork = (ledger: Ledger): boolean =>
  ledger.todoPages > 0 || ledger.slices.length > 0 || ledger.again.some((entry) => ledger.outstanding.has(entry.item));

/** Everything that was found in this round is applied at the destination. */
export const isDone = (ledger: Ledger): boolean =>
  ledger.todoPages === 0 && ledger.slices.length === 0 && ledger.outstanding.size === 0;

/** Bytes of pages that this round still owes. */
export const remainingBytes = (ledger: Ledger): number => ledger.todoPages * PAGE_BYTES + ledger.outstandingBytes;
