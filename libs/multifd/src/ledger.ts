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
import * as Cuts from "./cuts.ts";
import * as Verification from "./verification.ts";

export interface PagesWork extends Cuts.Cut {
  readonly kind: "pages";
}
export interface SliceWork {
  readonly kind: "slice";
  readonly offset: number;
  readonly bytes: number;
}
/** A comparison of pages that were applied (capability `verify`). */
export interface CheckWork extends Cuts.Cut {
  readonly kind: "check";
}
export type Work = PagesWork | SliceWork | CheckWork;

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
  /** Of them, those whose worker could not read it. */
  refusals: number;
}

export interface Ledger {
  readonly itemPagesMax: number;
  round: number;
  nextItem: number;
  readonly todo: ReadonlyArray<Bitmap.Bitmap>;
  todoPages: number;
  /** What was owed before this round and has not been found in it yet (`holdBack`); null: nothing waits for the end of the sync. */
  held: ReadonlyArray<Bitmap.Bitmap> | null;
  /** Where the next cut begins. */
  at: Cuts.Place;
  readonly slices: SliceWork[];
  /** Null without capability `verify`. */
  readonly verification: Verification.Verification | null;
  /** All pages of this round have been found: they may be compared once they are applied. */
  complete: boolean;
  /** The items that the manifest promises; null before the last round. */
  promised: number | null;
  nextRepair: number;
  /** Damaged pages of the last round, each with the check that found it and waits for it. */
  readonly repairs: Array<{ readonly work: PagesWork; readonly check: Item }>;
  readonly repairing: Map<number, Item>;
  /** Items in `outstanding` that are no checks. */
  unapplied: number;
  /** All items of this round that were handed out and not acknowledged. */
  readonly outstanding: Map<number, Item>;
  /** Those of them that wait to be handed out again, in order. */
  readonly again: Item[];
  outstandingBytes: number;
  resentItems: number;
}

/** `itemPagesMax`: pages of one item, at most PACKET_PAGES_MAX; fewer where the server's `max_payload` is small. */
export const make = (
  pagesOfBlocks: ReadonlyArray<number>,
  itemPagesMax: number = PACKET_PAGES_MAX,
  verification: Verification.Verification | null = null,
): Ledger => ({
  itemPagesMax,
  verification,
  complete: false,
  promised: null,
  nextRepair: 0,
  repairs: [],
  repairing: new Map(),
  unapplied: 0,
  round: 0,
  nextItem: 0,
  todo: pagesOfBlocks.map((pages) => Bitmap.make(pages)),
  todoPages: 0,
  held: null,
  at: Cuts.START,
  slices: [],
  outstanding: new Map(),
  again: [],
  outstandingBytes: 0,
  resentItems: 0,
});

/** Begins the next round; nothing of the old one is forgotten. Device state belongs to the last round and must not be pending yet. */
export const beginRound = (ledger: Ledger): void => {
  release(ledger);
  for (const { work } of ledger.outstanding.values()) {
    // What was to be checked is unverified still, and is checked in the new round.
    if (work.kind === "check") continue;
    if (work.kind === "slice") throw new Error("a round began after the device state was handed out");
    for (let r = 0; r < work.runs.length; r += 2) found(ledger, work.block, work.runs[r]!, work.runs[r + 1]!);
  }
  ledger.outstanding.clear();
  ledger.again.length = 0;
  ledger.outstandingBytes = 0;
  ledger.round++;
  ledger.nextItem = 0;
  ledger.at = Cuts.START;
  ledger.unapplied = 0;
  ledger.complete = false;
  if (ledger.verification !== null) Verification.beginRound(ledger.verification);
};

/**
 * Pages that are owed already are handed out no earlier than `foundAll`, or when the sync finds them again. For the last round of a
 * tracker that sends from its own copy (`content`): where the sync has not come yet the copy is old, and that page sent now and again
 * when it is found would go twice in one round with two contents, of which the older one may arrive last (R2).
 */
export const holdBack = (ledger: Ledger): void => {
  if (ledger.todoPages === 0) return;
  ledger.held = ledger.todo.map(({ words, pageCount }) => ({ words: words.slice(), pageCount }));
  for (const bitmap of ledger.todo) Bitmap.clearAll(bitmap);
  ledger.todoPages = 0;
};

const release = (ledger: Ledger): void => {
  for (const [block, held] of (ledger.held ?? []).entries()) {
    // What was found again is in `todo`, or on its way, and no longer among these.
    ledger.todoPages += Bitmap.count(held);
    Bitmap.orInto(ledger.todo[block]!, held);
  }
  ledger.held = null;
};

/** Notes pages that this round must send. */
export const found = (ledger: Ledger, block: number, firstPage: number, pages: number): void => {
  if (ledger.held !== null) Bitmap.clearRange(ledger.held[block]!, firstPage, pages);
  ledger.todoPages += Bitmap.setRange(ledger.todo[block]!, firstPage, pages);
  if (ledger.verification !== null) Verification.found(ledger.verification, block, firstPage, pages);
};

/** The sync of this round has named every page: what was held back goes, and what was suspected and not written since is sent again. */
export const foundAll = (ledger: Ledger): void => {
  release(ledger);
  if (ledger.verification !== null)
    Verification.settleSuspects(ledger.verification, (block, firstPage, pages) =>
      found(ledger, block, firstPage, pages),
    );
  ledger.complete = true;
};

/**
 * Postcopy: the destination shall ask for what this round found, and for what it holds and was never compared. Returns those pages,
 * whole host pages of `hostPages` pages each, and forgets them: nobody here sends them.
 */
export const leaveBehind = (ledger: Ledger, hostPages: ReadonlyArray<number>): ReadonlyArray<Bitmap.Bitmap> => {
  const { verification, todo } = ledger;
  const behind = todo.map((bitmap, block) => {
    const unverified = verification?.unverified[block];
    const pages =
      unverified === undefined
        ? { words: bitmap.words.slice(), pageCount: bitmap.pageCount }
        : Bitmap.union(bitmap, unverified);
    Bitmap.widen(pages, hostPages[block] ?? 1);
    Bitmap.clearAll(bitmap);
    return pages;
  });
  ledger.todoPages = 0;
  if (verification !== null) Verification.forget(verification);
  return behind;
};

/** Cuts the device state into slices for the running (last) round. */
export const addDeviceState = (ledger: Ledger, bytes: number): void => {
  const sliceBytes = ledger.itemPagesMax * PAGE_BYTES;
  for (let offset = 0; offset < bytes; offset += sliceBytes) {
    ledger.slices.push({ kind: "slice", offset, bytes: Math.min(sliceBytes, bytes - offset) });
  }
};

/**
 * How many items this round has, those already cut included: what the manifest promises. To be called once all pages are found and
 * before any is checked; repairs get numbers behind these.
 */
export const promise = (ledger: Ledger): number => {
  const { todo, itemPagesMax, at, verification } = ledger;
  // As they are taken: from here to the end, then what was found behind.
  const pages = Cuts.count(todo, itemPagesMax, at, Cuts.END) + Cuts.count(todo, itemPagesMax, Cuts.START, at);
  const checks = verification === null ? 0 : Verification.checksOfRound(verification, itemPagesMax);
  ledger.promised = ledger.nextItem + ledger.slices.length + pages + checks;
  ledger.nextRepair = ledger.promised;
  return ledger.promised;
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
  const repair = ledger.repairs.shift();
  if (repair !== undefined) {
    const item = hand(ledger, ledger.nextRepair++, repair.work, lane, now);
    ledger.repairing.set(item.item, repair.check);
    return item;
  }
  const work = takeSlice(ledger) ?? takePages(ledger) ?? takeCheck(ledger);
  return work === null ? null : hand(ledger, ledger.nextItem++, work, lane, now);
};

const hand = (
  ledger: Ledger,
  number: number,
  work: Work,
  lane: { readonly channel: number; readonly epoch: number },
  now: number,
): Item => {
  const bytes = work.kind === "slice" ? work.bytes : work.pages * PAGE_BYTES;
  const item: Item = {
    item: number,
    work,
    bytes,
    channel: lane.channel,
    channelEpoch: lane.epoch,
    firstSentAt: now,
    sentAt: now,
    attempts: 1,
    refusals: 0,
  };
  ledger.outstanding.set(item.item, item);
  if (work.kind !== "check") {
    ledger.unapplied++;
    ledger.outstandingBytes += bytes;
  }
  return item;
};

const takeSlice = (ledger: Ledger): SliceWork | null => ledger.slices.shift() ?? null;

const takePages = (ledger: Ledger): PagesWork | null => {
  if (ledger.todoPages === 0) return null;
  const { todo, itemPagesMax, at } = ledger;
  // A scan that spreads over threads finds pages behind the cut as well.
  const next = Cuts.next(todo, itemPagesMax, at, Cuts.END) ?? Cuts.next(todo, itemPagesMax, Cuts.START, at);
  if (next === null) return null;
  const { runs, block, pages } = next.cut;
  for (let r = 0; r < runs.length; r += 2) Bitmap.clearRange(todo[block]!, runs[r]!, runs[r + 1]!);
  ledger.todoPages -= pages;
  ledger.at = next.after;
  return { kind: "pages", ...next.cut };
};

/** Checks come last: once every page of the round is applied, so that what differs is no page still on its way. */
const mayCheck = (ledger: Ledger): boolean => ledger.complete && ledger.unapplied === 0;

const takeCheck = (ledger: Ledger): CheckWork | null => {
  if (ledger.verification === null || !mayCheck(ledger)) return null;
  const cut = Verification.take(ledger.verification, ledger.itemPagesMax);
  return cut === null ? null : { kind: "check", ...cut };
};

/** Retires an item: the destination has applied it. Returns it, or null for one that is gone already. */
export const applied = (ledger: Ledger, item: number): Item | null => {
  const entry = ledger.outstanding.get(item);
  if (entry === undefined) return null;
  ledger.outstanding.delete(item);
  if (entry.work.kind === "check") {
    if (ledger.verification !== null) Verification.equal(ledger.verification, entry.work);
    return entry;
  }
  ledger.unapplied--;
  ledger.outstandingBytes -= entry.bytes;
  const check = ledger.repairing.get(item);
  if (check !== undefined) {
    ledger.repairing.delete(item);
    ledger.again.push(check);
  }
  return entry;
};

/**
 * A check found pages that differ (bit i of `differing`: the i-th of the check). In the last round they are repaired, then checked
 * again; before that the next sync tells whether the guest wrote them. Returns the check, or null for one that is gone, or that
 * waits for its repair already.
 */
export const differs = (ledger: Ledger, number: number, differing: Uint8Array): Item | null => {
  const { verification } = ledger;
  const check = ledger.outstanding.get(number);
  if (verification === null || check?.work.kind !== "check" || check.channel === null) return null;
  const pages = Cuts.choose(check.work, differing);
  if (pages.pages === 0) return null;
  if (ledger.promised === null) {
    ledger.outstanding.delete(number);
    Verification.suspected(verification, pages);
    return check;
  }
  check.channel = null;
  Verification.damaged(verification, pages.block, pages.pages);
  ledger.repairs.push({ work: { kind: "pages", ...pages }, check });
  return check;
};

/** The item's channel failed it: it waits to be handed out again. */
export const sendAgain = (ledger: Ledger, entry: Item): void => {
  if (entry.channel === null) return;
  entry.channel = null;
  ledger.again.push(entry);
};

/**
 * Items that a channel has had for longer than `afterMs`; twice as long for each further copy, so that a slow path is not flooded, but
 * never longer than `maxMs`: a path that was gone and is back must not wait for it.
 */
export const overdue = (ledger: Ledger, now: number, afterMs: number, maxMs: number): Item[] => {
  const late: Item[] = [];
  for (const entry of ledger.outstanding.values()) {
    if (entry.channel !== null && now - entry.sentAt >= Math.min(maxMs, afterMs * 2 ** (entry.attempts - 1)))
      late.push(entry);
  }
  return late;
};

/** Something waits to be handed out, or to be handed out again. */
export const hasWork = (ledger: Ledger): boolean =>
  ledger.todoPages > 0 ||
  ledger.slices.length > 0 ||
  ledger.repairs.length > 0 ||
  (unchecked(ledger) > 0 && mayCheck(ledger)) ||
  ledger.again.some((entry) => ledger.outstanding.has(entry.item));

/** Pages of this round that no check was made for yet. */
const unchecked = (ledger: Ledger): number => ledger.verification?.pagesAhead ?? 0;

/** Everything that was found in this round is applied at the destination, and was compared where that is wanted. */
export const isDone = (ledger: Ledger): boolean =>
  isApplied(ledger) && ledger.outstanding.size === 0 && unchecked(ledger) === 0;

/** Everything that was found in this round is applied at the destination. */
export const isApplied = (ledger: Ledger): boolean =>
  ledger.todoPages === 0 && ledger.slices.length === 0 && ledger.repairs.length === 0 && ledger.unapplied === 0;

/** Bytes of pages that this round still owes. */
export const remainingBytes = ({ todoPages, held, outstandingBytes }: Ledger): number => {
  const heldPages = (held ?? []).reduce((sum, bitmap) => sum + Bitmap.count(bitmap), 0);
  return (todoPages + heldPages) * PAGE_BYTES + outstandingBytes;
};
