/**
 * Handing out what a ledger holds over the channels that there are, and taking it back from those that fail: what every producer of pages
 * does, whoever they go to. Which item may go, and what an answer means, is the producer's to say.
 */
import * as Channels from "./channels.ts";
import * as Ledger from "./ledger.ts";

/** What a producer owes, and the channels it has. */
export interface Owed {
  readonly ledger: Ledger.Ledger;
  readonly channels: Channels.Channels;
}

/** An item that a worker is to be asked for. */
export interface Handed {
  readonly worker: string;
  readonly item: Ledger.Item;
  readonly channel: number;
  readonly channelEpoch: number;
}

/** Hands the next item to the channel with the most room; null: nothing is left, or no channel has room. */
export const next = ({ ledger, channels }: Owed, now: number): Handed | null => {
  const lane = Channels.roomiest(channels, now);
  if (lane === null || lane.worker === null) return null;
  const item = Ledger.take(ledger, lane, now);
  if (item === null) return null;
  lane.inFlightBytes += item.bytes;
  return { worker: lane.worker, item, channel: lane.channel, channelEpoch: lane.epoch };
};

/** The item's channel failed it: it waits to be handed out again. */
export const again = ({ ledger, channels }: Owed, item: Ledger.Item): void => {
  Channels.leaveWindow(channels, item);
  Ledger.sendAgain(ledger, item);
};

/** Begins a round: from here on nothing of the old one is in flight, and everything owed is owed again. */
export const beginRound = ({ ledger, channels }: Owed): void => {
  Ledger.beginRound(ledger);
  for (const lane of channels.lanes) lane.inFlightBytes = 0;
};

/**
 * A worker has refused an item: its channel is suspected. Returns the item, its refusals counted; null for one that nobody has, or that
 * was refused by its copy already.
 */
export const refused = ({ ledger, channels }: Owed, number: number, now: number): Ledger.Item | null => {
  const item = ledger.outstanding.get(number);
  // One that waits to be handed out is not refused by anybody, and a copy is refused once.
  if (item === undefined || item.channel === null || item.refusals >= item.attempts) return null;
  Channels.suspect(channels, item.channel, now);
  item.refusals++;
  return item;
};

export const workerUp = (owed: Owed, worker: string): void => {
  for (const lane of Channels.workerUp(owed.channels, worker)) release(owed, lane.channel);
};

export const workerDown = (owed: Owed, worker: string): void => {
  for (const lane of Channels.workerDown(owed.channels, worker)) release(owed, lane.channel);
};

const release = (owed: Owed, channel: number): void => {
  for (const item of owed.ledger.outstanding.values()) if (item.channel === channel) again(owed, item);
};

/** Everything in flight may be lost: the link broke. */
export const linkRestored = (owed: Owed): void => {
  for (const item of owed.ledger.outstanding.values()) again(owed, item);
};

/** Late items go to other channels at once; see `Ledger.overdue`. */
export const takeBackLate = (owed: Owed, now: number, afterMs: number, maxMs: number): void => {
  for (const item of Ledger.overdue(owed.ledger, now, afterMs, maxMs)) {
    if (item.channel !== null) Channels.suspect(owed.channels, item.channel, now);
    again(owed, item);
  }
};

/** The usual time from handing out to acknowledgement, ms, once this one is known; `usualMs` 0: none was yet. */
export const smoothed = (usualMs: number, ms: number): number => (usualMs === 0 ? ms : usualMs * 0.9 + ms * 0.1);

/** When an item is late: after so many usual delays, within limits, ms; twice as long for each further copy, up to the same limit. */
export interface Patience {
  readonly delays: number;
  readonly minMs: number;
  readonly maxMs: number;
}

/** How long after it was handed out first an item is late, ms, given the usual delay, ms. */
export const lateAfter = ({ delays, minMs, maxMs }: Patience, usualMs: number): number =>
  Math.min(maxMs, Math.max(minMs, delays * usualMs));

/** Of workers that copy pages between memory and a file, whichever way. */
export const FILE = {
  /** A disk that flushes what was written to it may keep a worker for seconds, and then all of them. */
  late: { delays: 8, minMs: 500, maxMs: 10_000 },
  /** Between two looks for late items, ms. */
  checkMs: 100,
  /** An item that was refused so often ends the work. */
  refusalsMax: 8,
  /** Without a single worker for so long it gives up, ms: a supervisor restarts one in well under a second. */
  workersLostMs: 30_000,
} as const;

/** Takes back what is late of such work, given its usual delay, ms. */
export const takeBackLateCopies = (owed: Owed, now: number, usualMs: number): void =>
  takeBackLate(owed, now, lateAfter(FILE.late, usualMs), FILE.late.maxMs);
