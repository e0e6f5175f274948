/**
 * Postcopy at the destination: the guest runs, and its missing pages are asked for, those that a vCPU waits for on a channel of their own.
 *
 *     missing --(touched, preempt)--> urgent channel --arrived--> in memory
 *        |                                                          ^
 *        +---(its turn, or touched)--> multifd channels ---arrived--+
 *
 * The source stands still and keeps its memory, so whatever is asked twice comes equal twice: nothing is needed here but to ask again for
 * what is late (R1 turned round: who lacks a page owns its coming). Each page is asked for on one of the two ways only. Pages that share a host page
 * are placed together: one that was begun in the background is ended there, and while the guest waits for a large one, the background
 * waits as well. Pure; `now` in ms.
 */
import * as Bitmap from "@godwit/memory/bitmap";
import { Channels, Handing, Ledger, Pace } from "@godwit/multifd";
import { URGENT_ITEM_FIRST } from "@godwit/protocol";
import { addLatency, type Latencies, makeLatencies } from "./latencies.ts";

/**
 * Unacknowledged bytes of a background channel while the guest waits on another one: two packets. What is on its way already is not
 * asked for twice, so a page among it takes as long as all of that.
 */
const BACKGROUND_WINDOW_BYTES = 512 * 1024;
/** When an item is late: after so many usual delays, within limits, ms. A vCPU waits for an urgent one, and asking again costs little. */
const LATE = { urgent: { delays: 6, minMs: 40, maxMs: 1000 }, background: { delays: 8, minMs: 150, maxMs: 3000 } };
/** Without a single page for so long, though some were asked for, the source is out of reach, ms. */
const LOST_MS = 2000;
/** Between two looks for late items, ms. */
const LOOK_MS = 20;

export interface PostcopyBlock {
  readonly pages: number;
  /** Pages of one host page: 1, or 512 for 2 MiB. */
  readonly hostPages: number;
}

interface Wait {
  readonly since: number;
  /** The thread that waits, by its number in the kernel; 0: not known. */
  readonly thread: number;
}

export interface Postcopy {
  readonly blocks: ReadonlyArray<PostcopyBlock>;
  readonly preempt: boolean;
  readonly prefetch: boolean;
  readonly autoRecover: boolean;
  /** Threads that run the guest; all of them waiting is a guest that stands still. */
  vcpus: number;
  /** Pages whose content is at the source only. */
  readonly missing: ReadonlyArray<Bitmap.Bitmap>;
  missingPages: number;
  readonly background: Handing.Owed;
  readonly urgent: Handing.Owed;
  /** Where the background goes on once the host page is whole that it is in; null: from where it is. */
  next: { readonly block: number; readonly page: number } | null;
  readonly pace: Pace.Pace;
  readonly workers: Set<string>;
  /** Serves the urgent channel, and no other while there are others. */
  reserved: string | null;
  /** Touched pages, by block and first page of their host page. */
  readonly waits: Map<number, Wait[]>;
  readonly latencies: Latencies;
  readonly blocked: Map<number, number>;
  /** For how long each thread has waited, ms. */
  readonly blockedMs: Map<number, number>;
  allBlockedSince: number | null;
  allBlockedMs: number;
  transferredBytes: number;
  readonly delayMs: { urgent: number; background: number };
  lastArrivalAt: number;
  /** The first tick has come: the workers that there are at the beginning are known. */
  isBegun: boolean;
  /** The operator's word: no page is asked for. */
  isPaused: boolean;
  /** Nothing has come for LOST_MS. */
  isLost: boolean;
  /** Asked again after a pause, and nothing has come yet. */
  isRecovering: boolean;
  isOver: boolean;
}

export type PostcopyEvent =
  | {
      readonly _tag: "Touched";
      readonly block: number;
      readonly page: number;
      readonly thread: number;
      readonly since: number;
    }
  /** The item's pages are in memory, or wait for the rest of their host page. */
  | { readonly _tag: "Arrived"; readonly way: Way; readonly item: number; readonly wireBytes: number }
  | { readonly _tag: "Refused"; readonly way: Way; readonly item: number }
  | { readonly _tag: "WorkerUp"; readonly worker: string }
  | { readonly _tag: "WorkerDown"; readonly worker: string }
  | { readonly _tag: "LinkRestored" }
  /** How many threads run the guest. */
  | { readonly _tag: "Vcpus"; readonly count: number }
  | { readonly _tag: "Pause" }
  | { readonly _tag: "Recover" }
  /** `max-postcopy-bandwidth`; 0 is unlimited. */
  | { readonly _tag: "Tune"; readonly bytesPerSecond: number }
  | { readonly _tag: "Tick" };

export type Way = "urgent" | "background";

export type PostcopyEffect =
  | ({ readonly _tag: "Ask"; readonly way: Way } & Handing.Handed)
  /** A touched page that no source has: it is in memory already, or was zero when it came. */
  | { readonly _tag: "Zero"; readonly block: number; readonly page: number }
  | { readonly _tag: "AllThere" }
  | { readonly _tag: "WakeAt"; readonly at: number };

type Emit = (effect: PostcopyEffect) => void;

export const makePostcopy = (options: {
  readonly blocks: ReadonlyArray<PostcopyBlock>;
  /** Becomes this state's own. */
  readonly missing: ReadonlyArray<Bitmap.Bitmap>;
  readonly itemPagesMax: number;
  readonly channels: number;
  readonly bytesPerSecond: number;
  readonly preempt: boolean;
  readonly prefetch: boolean;
  readonly autoRecover: boolean;
  readonly now: number;
}): Postcopy => {
  const { blocks, missing, now } = options;
  const owed = (channels: Channels.Channels): Handing.Owed => {
    const ledger = Ledger.make(
      blocks.map(({ pages }) => pages),
      options.itemPagesMax,
    );
    Ledger.beginRound(ledger);
    return { ledger, channels };
  };
  const urgent = owed(Channels.make(1));
  urgent.ledger.nextItem = URGENT_ITEM_FIRST;
  const channels = Channels.make(options.channels);
  const background = owed(options.preempt ? { ...channels, windowBytes: BACKGROUND_WINDOW_BYTES } : channels);
  missing.forEach((bitmap, block) => {
    for (let run = Bitmap.nextRun(bitmap, 0, bitmap.pageCount); run !== null; ) {
      Ledger.found(background.ledger, block, run.first, run.count);
      run = Bitmap.nextRun(bitmap, run.first + run.count, bitmap.pageCount);
    }
  });
  return {
    blocks,
    preempt: options.preempt,
    prefetch: options.prefetch,
    autoRecover: options.autoRecover,
    vcpus: 0,
    missing,
    missingPages: background.ledger.todoPages,
    background,
    urgent,
    next: null,
    pace: Pace.make(options.bytesPerSecond, now),
    workers: new Set(),
    reserved: null,
    waits: new Map(),
    latencies: makeLatencies(),
    blocked: new Map(),
    blockedMs: new Map(),
    allBlockedSince: null,
    allBlockedMs: 0,
    transferredBytes: 0,
    delayMs: { urgent: 0, background: 0 },
    lastArrivalAt: now,
    isBegun: false,
    isPaused: false,
    isLost: false,
    isRecovering: false,
    isOver: false,
  };
};

/** Advances `postcopy` (which it owns and changes) by one event; "Tick" begins it. */
export const stepPostcopy = (postcopy: Postcopy, event: PostcopyEvent, now: number): PostcopyEffect[] => {
  const effects: PostcopyEffect[] = [];
  if (postcopy.isOver) return effects;
  const emit: Emit = (effect) => effects.push(effect);
  handle(postcopy, event, now, emit);
  if (postcopy.missingPages === 0) {
    postcopy.isOver = true;
    settleBlocked(postcopy, now);
    emit({ _tag: "AllThere" });
    return effects;
  }
  pump(postcopy, now, emit);
  emit({ _tag: "WakeAt", at: now + LOOK_MS });
  return effects;
};

const handle = (postcopy: Postcopy, event: PostcopyEvent, now: number, emit: Emit): void => {
  switch (event._tag) {
    case "Touched":
      return touched(postcopy, event, now, emit);
    case "Arrived":
      return arrived(postcopy, event, now);
    case "Refused": {
      const owed = postcopy[event.way];
      const item = Handing.refused(owed, event.item, now);
      // At once and elsewhere the first time; then when it is late: the source's sender may be on its way back.
      if (item?.refusals === 1) Handing.again(owed, item);
      return;
    }
    case "WorkerUp":
      postcopy.workers.add(event.worker);
      return assignWorkers(postcopy);
    case "WorkerDown":
      postcopy.workers.delete(event.worker);
      return assignWorkers(postcopy);
    case "LinkRestored":
      Handing.linkRestored(postcopy.urgent);
      return Handing.linkRestored(postcopy.background);
    case "Vcpus":
      postcopy.vcpus = event.count;
      return;
    case "Pause":
      postcopy.isPaused = true;
      postcopy.isRecovering = false;
      return;
    case "Recover":
      return recover(postcopy, now);
    case "Tune":
      postcopy.pace.bytesPerSecond = event.bytesPerSecond;
      return;
    case "Tick":
      return tick(postcopy, now);
  }
};

const recover = (postcopy: Postcopy, now: number): void => {
  if (!postcopy.isPaused && !postcopy.isLost) return;
  postcopy.isPaused = false;
  postcopy.isLost = false;
  postcopy.isRecovering = true;
  postcopy.lastArrivalAt = now;
  Handing.linkRestored(postcopy.urgent);
  Handing.linkRestored(postcopy.background);
};

/** The first page of the host page that a page belongs to, as one number for both. */
const KEY = 2 ** 32;
const hostPageOf = (
  { blocks }: Postcopy,
  block: number,
  page: number,
): { first: number; pages: number; key: number } => {
  const { hostPages, pages } = blocks[block]!;
  const first = page - (page % hostPages);
  return { first, pages: Math.min(hostPages, pages - first), key: block * KEY + first };
};

const touched = (
  postcopy: Postcopy,
  { block, page, thread, since }: Extract<PostcopyEvent, { _tag: "Touched" }>,
  now: number,
  emit: Emit,
): void => {
  // A hypervisor that asks for what it does not have is not our guest's thread.
  if (page < 0 || page >= (postcopy.blocks[block]?.pages ?? 0)) return;
  const { first, pages, key } = hostPageOf(postcopy, block, page);
  if (!isMissing(postcopy, block, first, pages)) return emit({ _tag: "Zero", block, page });
  const waiting = postcopy.waits.get(key);
  if (waiting === undefined) postcopy.waits.set(key, [{ since, thread }]);
  else waiting.push({ since, thread });
  noteBlocked(postcopy, thread, since, now);
  const { ledger } = postcopy.background;
  const left = pagesLeft(ledger, block, first, pages);
  if (postcopy.preempt && left === pages) {
    Bitmap.clearRange(ledger.todo[block]!, first, pages);
    ledger.todoPages -= pages;
    Ledger.found(postcopy.urgent.ledger, block, first, pages);
    if (postcopy.prefetch) goOnAt(postcopy, block, first + pages);
  } else if (left > 0) {
    // Begun in the background, it is ended there: before all else.
    postcopy.next = null;
    ledger.at = { block, page: first };
  }
};

/** The background goes on at a place once the host page is whole that it is in. */
const goOnAt = (postcopy: Postcopy, block: number, page: number): void => {
  if (page >= postcopy.blocks[block]!.pages) return;
  postcopy.next = { block, page };
};

const isMissing = ({ missing }: Postcopy, block: number, first: number, pages: number): boolean =>
  !Bitmap.isClearRange(missing[block]!, first, pages);

/** Pages of a host page that were not handed out in the background. */
const pagesLeft = ({ todo }: Ledger.Ledger, block: number, first: number, pages: number): number => {
  let left = 0;
  for (let page = first; page < first + pages; ) {
    const run = Bitmap.nextRun(todo[block]!, page, first + pages - page);
    if (run === null || run.first >= first + pages) break;
    const end = Math.min(run.first + run.count, first + pages);
    left += end - run.first;
    page = end;
  }
  return left;
};

const arrived = (
  postcopy: Postcopy,
  { way, item: number, wireBytes }: Extract<PostcopyEvent, { _tag: "Arrived" }>,
  now: number,
): void => {
  const owed = postcopy[way];
  const item = Ledger.applied(owed.ledger, number);
  if (item === null || item.work.kind !== "pages") return;
  Channels.leaveWindow(owed.channels, item);
  Channels.trust(owed.channels, item);
  postcopy.delayMs[way] = Handing.smoothed(postcopy.delayMs[way], now - item.firstSentAt);
  postcopy.transferredBytes += wireBytes;
  postcopy.lastArrivalAt = now;
  postcopy.isLost = false;
  postcopy.isRecovering = false;
  if (way === "background") Pace.refund(postcopy.pace, item.bytes - wireBytes);
  const { block, runs } = item.work;
  for (let r = 0; r < runs.length; r += 2) inMemory(postcopy, block, runs[r]!, runs[r + 1]!, now);
};

const inMemory = (postcopy: Postcopy, block: number, first: number, pages: number, now: number): void => {
  const bitmap = postcopy.missing[block]!;
  // An item is retired once, and holds pages of its own: all of them were missing.
  Bitmap.clearRange(bitmap, first, pages);
  postcopy.missingPages -= pages;
  if (postcopy.waits.size === 0) return;
  for (let page = first; page < first + pages; ) {
    const host = hostPageOf(postcopy, block, page);
    page = host.first + host.pages;
    const waiting = postcopy.waits.get(host.key);
    if (waiting === undefined || isMissing(postcopy, block, host.first, host.pages)) continue;
    postcopy.waits.delete(host.key);
    for (const { since, thread } of waiting) {
      addLatency(postcopy.latencies, now - since);
      unblock(postcopy, thread, now);
    }
  }
};

const noteBlocked = (postcopy: Postcopy, thread: number, since: number, now: number): void => {
  if (!postcopy.blocked.has(thread)) postcopy.blocked.set(thread, since);
  if (postcopy.vcpus > 0 && postcopy.blocked.size >= postcopy.vcpus) postcopy.allBlockedSince ??= Math.min(now, since);
};

const unblock = (postcopy: Postcopy, thread: number, now: number): void => {
  const since = postcopy.blocked.get(thread);
  if (since === undefined) return;
  postcopy.blocked.delete(thread);
  postcopy.blockedMs.set(thread, (postcopy.blockedMs.get(thread) ?? 0) + Math.max(0, now - since));
  if (postcopy.allBlockedSince === null) return;
  postcopy.allBlockedMs += Math.max(0, now - postcopy.allBlockedSince);
  postcopy.allBlockedSince = null;
};

const settleBlocked = (postcopy: Postcopy, now: number): void => {
  for (const thread of [...postcopy.blocked.keys()]) unblock(postcopy, thread, now);
};

/** One worker for the urgent channel alone, as long as there are others for the background. */
const assignWorkers = (postcopy: Postcopy): void => {
  const { workers, urgent, background, preempt } = postcopy;
  if (!postcopy.isBegun || postcopy.reserved === null || !workers.has(postcopy.reserved))
    postcopy.reserved = preempt ? ([...workers].sort().at(-1) ?? null) : null;
  serveWith(urgent, postcopy.reserved === null ? [] : [postcopy.reserved]);
  serveWith(
    background,
    workers.size === 1 ? [...workers] : [...workers].filter((worker) => worker !== postcopy.reserved),
  );
};

const serveWith = (owed: Handing.Owed, wanted: ReadonlyArray<string>): void => {
  for (const worker of [...owed.channels.workers]) if (!wanted.includes(worker)) Handing.workerDown(owed, worker);
  for (const worker of wanted) Handing.workerUp(owed, worker);
};

/** The urgent channel's worker is late: the next one takes its place. */
const takeTurns = (postcopy: Postcopy): void => {
  const all = [...postcopy.workers].sort();
  const at = all.indexOf(postcopy.reserved ?? "");
  const heir = all[(at + 1) % all.length] ?? null;
  if (heir === postcopy.reserved) return Handing.linkRestored(postcopy.urgent);
  postcopy.reserved = heir;
  assignWorkers(postcopy);
};

const lateAfter = ({ delayMs }: Postcopy, way: Way): number => Handing.lateAfter(LATE[way], delayMs[way]);

const tick = (postcopy: Postcopy, now: number): void => {
  postcopy.isBegun = true;
  const { urgent, background } = postcopy;
  const isAsked = urgent.ledger.outstanding.size > 0 || background.ledger.outstanding.size > 0;
  if (!isAsked && postcopy.workers.size > 0) postcopy.lastArrivalAt = now;
  if (!postcopy.isPaused && now - postcopy.lastArrivalAt >= LOST_MS) postcopy.isLost = true;
  if (Ledger.overdue(urgent.ledger, now, lateAfter(postcopy, "urgent"), LATE.urgent.maxMs).length > 0)
    takeTurns(postcopy);
  Handing.takeBackLate(background, now, lateAfter(postcopy, "background"), LATE.background.maxMs);
};

/** Nothing is asked for: by the operator's word, or since the source is out of reach and nobody shall go on by himself. */
export const isHeld = ({ isPaused, isLost, autoRecover }: Postcopy): boolean => isPaused || (isLost && !autoRecover);

const pump = (postcopy: Postcopy, now: number, emit: Emit): void => {
  if (!postcopy.isBegun || isHeld(postcopy)) return;
  const { urgent, background, pace } = postcopy;
  for (let handed = Handing.next(urgent, now); handed !== null; handed = Handing.next(urgent, now))
    emit({ _tag: "Ask", way: "urgent", ...handed });
  while (!isInterrupted(postcopy) && Pace.maySpend(pace, now)) {
    follow(postcopy);
    const handed = Handing.next(background, now);
    if (handed === null) return;
    Pace.spend(pace, handed.item.bytes);
    emit({ _tag: "Ask", way: "background", ...handed });
  }
};

/**
 * While the guest waits for a page, the background has one packet on its way at most: what it keeps busy, processors as well as links, a
 * waiting vCPU needs. A large page has the way for itself; what the background has begun with, it ends.
 */
const isInterrupted = (postcopy: Postcopy): boolean => {
  const { urgent, background, blocks } = postcopy;
  if (Ledger.isApplied(urgent.ledger)) return false;
  // What is to be asked for again is not on its way.
  if (background.channels.lanes.some(({ inFlightBytes }) => inFlightBytes > 0)) return true;
  const { at } = background.ledger;
  const large = blocks.some(({ hostPages }) => hostPages > background.ledger.itemPagesMax);
  return large && !isWaitedFor(postcopy, at.block, at.page);
};

const isWaitedFor = (postcopy: Postcopy, block: number, page: number): boolean =>
  block < postcopy.blocks.length &&
  page < postcopy.blocks[block]!.pages &&
  postcopy.waits.has(hostPageOf(postcopy, block, page).key);

/** Goes to where the guest has touched last, unless that would leave a host page half asked for. */
const follow = (postcopy: Postcopy): void => {
  const { next, background } = postcopy;
  if (next === null || isHalfAsked(postcopy, background.ledger.at)) return;
  background.ledger.at = next;
  postcopy.next = null;
};

const isHalfAsked = (
  postcopy: Postcopy,
  { block, page }: { readonly block: number; readonly page: number },
): boolean => {
  if (page >= (postcopy.blocks[block]?.pages ?? 0)) return false;
  const { first, pages } = hostPageOf(postcopy, block, page);
  const left = pagesLeft(postcopy.background.ledger, block, first, pages);
  return left > 0 && left < pages;
};

/** Whether what has come is what was asked for by this number, and is still wanted. */
export const isExpected = (
  postcopy: Postcopy,
  way: Way,
  packet: { readonly item: number; readonly block: number; readonly runs: Uint32Array },
): boolean => {
  const work = postcopy[way].ledger.outstanding.get(packet.item)?.work;
  if (postcopy.isOver || work?.kind !== "pages" || work.block !== packet.block) return false;
  return work.runs.length === packet.runs.length && work.runs.every((value, index) => value === packet.runs[index]);
};

/** The way that an item of this number takes. */
export const wayOf = (item: number): Way => (item >= URGENT_ITEM_FIRST ? "urgent" : "background");
