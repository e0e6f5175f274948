/**
 * Which worker serves each multifd channel, and how much each channel has unacknowledged. A channel whose worker is lost is
 * bound to another one under a higher channel epoch; the workers themselves hold nothing.
 */

import { PACKET_PAGES_MAX, PAGE_BYTES } from "@godwit/protocol";

/** The largest item, pages or device state. */
const ITEM_BYTES_MAX = PACKET_PAGES_MAX * PAGE_BYTES;
/** Unacknowledged bytes of one channel: 8 packets of 256 KiB keep a worker and the way to the destination busy at every rate measured here. */
export const CHANNEL_WINDOW_BYTES = 2 * 1024 ** 2;
/** Unacknowledged bytes of a migration, however many channels: half of what a NATS server lets one slow subscriber fall behind before it cuts it. */
export const MIGRATION_WINDOW_BYTES = 32 * 1024 ** 2;

export interface Channel {
  readonly channel: number;
  worker: string | null;
  epoch: number;
  inFlightBytes: number;
  /** Until then it gets nothing while another has room: an item of its was late, ms since 1970. */
  suspectUntil: number;
}

export interface Channels {
  readonly lanes: ReadonlyArray<Channel>;
  readonly workers: Set<string>;
  readonly windowBytes: number;
}

export const make = (count: number): Channels => ({
  lanes: Array.from({ length: count }, (_, channel) => ({
    channel,
    worker: null,
    epoch: 0,
    inFlightBytes: 0,
    suspectUntil: 0,
  })),
  workers: new Set(),
  windowBytes: Math.min(CHANNEL_WINDOW_BYTES, MIGRATION_WINDOW_BYTES / count),
});

/** How long a channel with a late item is passed over, ms: as long as it takes to notice that its worker is gone. */
const SUSPECT_MS = 1000;

/** An item of this channel is late: what it had goes to others, and so does what comes next. */
export const suspect = (channels: Channels, channel: number, now: number): void => {
  const lane = channels.lanes[channel];
  if (lane !== undefined) lane.suspectUntil = now + SUSPECT_MS;
};

const load = (channels: Channels, worker: string): number =>
  channels.lanes.reduce((sum, lane) => sum + (lane.worker === worker ? 1 : 0), 0);

const bind = (lane: Channel, worker: string | null): void => {
  lane.worker = worker;
  lane.epoch++;
  lane.inFlightBytes = 0;
  lane.suspectUntil = 0;
};

const leastLoaded = (channels: Channels): string | null => {
  let best: string | null = null;
  for (const worker of channels.workers) {
    if (best === null || load(channels, worker) < load(channels, best)) best = worker;
  }
  return best;
};

/** Adds a worker; returns the channels that moved to it, whose items in flight must be handed out again. No more move than must. */
export const workerUp = (channels: Channels, worker: string): ReadonlyArray<Channel> => {
  if (channels.workers.has(worker)) return [];
  channels.workers.add(worker);
  const moved: Channel[] = [];
  for (let lane = busiest(channels); lane !== null; lane = busiest(channels)) {
    const present = lane.worker === null ? Number.POSITIVE_INFINITY : load(channels, lane.worker);
    if (present <= moved.length + 1) break;
    bind(lane, worker);
    moved.push(lane);
  }
  return moved;
};

/** A channel that nobody serves, or one whose worker serves the most. */
const busiest = (channels: Channels): Channel | null => {
  const served = new Map<string | null, number>();
  let best: Channel | null = null;
  for (const lane of channels.lanes) {
    if (lane.worker === null) return lane;
    served.set(lane.worker, (served.get(lane.worker) ?? 0) + 1);
    if (best === null || served.get(lane.worker)! > served.get(best.worker)!) best = lane;
  }
  return best;
};

/** Removes a worker; returns the channels that it served, bound to others or to nobody. */
export const workerDown = (channels: Channels, worker: string): ReadonlyArray<Channel> => {
  if (!channels.workers.delete(worker)) return [];
  const orphans = channels.lanes.filter((lane) => lane.worker === worker);
  for (const lane of orphans) bind(lane, null);
  for (const lane of orphans) {
    const heir = leastLoaded(channels);
    if (heir !== null) lane.worker = heir;
  }
  return orphans;
};

/**
 * The bound channel with the most room for an item, or null when every window is full. One under suspicion comes last, whatever
 * its room: a dead worker's channel is always empty. An empty channel takes any item, unless the migration's own window is
 * full: it holds however many channels there are.
 */
export const roomiest = (channels: Channels, now: number): Channel | null => {
  let best: Channel | null = null;
  let total = 0;
  for (const lane of channels.lanes) {
    total += lane.inFlightBytes;
    if (lane.worker === null) continue;
    if (lane.inFlightBytes !== 0 && lane.inFlightBytes + ITEM_BYTES_MAX > channels.windowBytes) continue;
    if (best === null || isBetter(lane, best, now)) best = lane;
  }
  return total + ITEM_BYTES_MAX > MIGRATION_WINDOW_BYTES ? null : best;
};

const isBetter = (lane: Channel, than: Channel, now: number): boolean => {
  const trusted = lane.suspectUntil <= now;
  if (trusted !== than.suspectUntil <= now) return trusted;
  return lane.inFlightBytes < than.inFlightBytes;
};

/** What a channel was given: a channel that was bound anew since has other bytes in flight. */
interface Given {
  readonly channel: number | null;
  readonly channelEpoch: number;
  readonly bytes: number;
}

const laneOf = (channels: Channels, { channel, channelEpoch }: Given): Channel | null => {
  const lane = channel === null ? undefined : channels.lanes[channel];
  return lane !== undefined && lane.epoch === channelEpoch ? lane : null;
};

/** Takes an item's bytes out of its channel's window, unless the channel was bound anew since. */
export const leaveWindow = (channels: Channels, given: Given): void => {
  const lane = laneOf(channels, given);
  if (lane !== null) lane.inFlightBytes = Math.max(0, lane.inFlightBytes - given.bytes);
};

/** A channel that has delivered is no longer under suspicion. */
export const trust = (channels: Channels, given: Given): void => {
  const lane = laneOf(channels, given);
  if (lane !== null) lane.suspectUntil = 0;
};
