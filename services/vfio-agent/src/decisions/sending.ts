/** Slices on their way: which channel gets them, when one is late, what comes of a channel that is lost. */
import { Channels, Handing, Pace } from "@godwit/multifd";
import { isSideBySide } from "./saving-device.ts";
import { type Emit, fail, type Saving } from "./saving-state.ts";
import * as Slices from "./slices.ts";

/**
 * When the first slice of a stream is late: after so many usual delays, within limits, ms; twice as long for each further copy. A device
 * that takes a while for what it is given looks the same, and gets a copy in vain now and then.
 */
const DELAYS = 3;
const LATE_MIN_MS = 50;
const LATE_MAX_MS = 1000;
/** A slice that workers cannot read is handed out again at most so often: its file is gone, and stays so. */
const REFUSALS_MAX = 20;

/** A guest that stands still is not held up by `max-bandwidth`. */
const isPaced = ({ phase }: Saving): boolean => phase === "Precopy";

const isSending = ({ phase }: Saving): boolean =>
  phase === "Precopy" || phase === "Quiescing" || phase === "Stopping" || phase === "Stopped";

export const pump = (saving: Saving, now: number, emit: Emit): void => {
  if (!isSending(saving)) return;
  const { slices, pace } = saving;
  while (slices.waiting.length > 0) {
    if (isPaced(saving) && !Pace.maySpend(pace, now)) return;
    const lane = laneOf(saving, now);
    if (lane === null || lane.worker === null) return;
    // The first after a pause.
    if (slices.waiting.length === slices.byItem.size) beginMeter(saving.meter, now);
    const slice = Slices.take(slices, lane, now);
    if (slice === null) return;
    lane.inFlightBytes += slice.bytes;
    if (isPaced(saving)) Pace.spend(pace, slice.bytes);
    const { item, stream, offset, bytes } = slice;
    emit({
      _tag: "Dispatch",
      worker: lane.worker,
      channel: lane.channel,
      channelEpoch: lane.epoch,
      item,
      stream,
      offset,
      bytes,
    });
  }
};

/** The first channel has the window of all when the others may not be used. An empty one takes any slice. */
const laneOf = (saving: Saving, now: number): Channels.Channel | null => {
  const { channels, slices } = saving;
  if (isSideBySide(saving)) return Channels.roomiest(channels, now);
  const first = channels.lanes[0]!;
  const windowBytes = channels.windowBytes * channels.lanes.length;
  return first.inFlightBytes === 0 || first.inFlightBytes + slices.sliceBytesMax <= windowBytes ? first : null;
};

export const applied = (saving: Saving, items: Uint32Array, now: number): void => {
  const { slices } = saving;
  for (const item of items) {
    const slice = Slices.applied(slices, item);
    if (slice === null) continue;
    Channels.leaveWindow(saving.channels, slice);
    Channels.trust(saving.channels, slice);
    saving.meter.bytes += slice.bytes;
    saving.ackMs = Handing.smoothed(saving.ackMs, now - slice.firstSentAt);
  }
  readMeter(saving, now);
};

/** So much must have gone without a pause before it says how slow the way is, bytes. */
const MEASURE_BYTES_MIN = 1024 ** 2;
/** A measurement is begun anew after this, ms: a way changes. */
const METER_MS = 1000;

/**
 * The rate while there is something to send. A device that changes a little now and then tells less than that, since most of the time is
 * waiting; that the way is faster than was believed shows in it all the same.
 */
const readMeter = ({ meter, slices }: Saving, now: number): void => {
  const elapsed = Math.max(1, now - meter.since);
  const rate = (meter.bytes * 1000) / elapsed;
  if (meter.bytes >= MEASURE_BYTES_MIN || rate > meter.bandwidth) meter.bandwidth = rate;
  if (elapsed >= METER_MS && !Slices.isEmpty(slices)) beginMeter(meter, now);
};

const beginMeter = (meter: Saving["meter"], now: number): void => {
  meter.since = now;
  meter.bytes = 0;
};

const again = (saving: Saving, slice: Slices.Slice): void => {
  Channels.leaveWindow(saving.channels, slice);
  Slices.sendAgain(saving.slices, slice);
};

export const refused = (saving: Saving, items: Uint32Array, reason: string, now: number): void => {
  for (const item of items) {
    const slice = saving.slices.byItem.get(item);
    if (slice === undefined || slice.channel === null) continue;
    if (slice.attempts >= REFUSALS_MAX) {
      const why = `workers cannot read slice ${item} of stream ${slice.stream}: ${reason}`;
      fail(saving, {
        code: "device-failed",
        actor: "vfio-agent",
        side: "source",
        step: "send device state",
        reason: why,
      });
      return;
    }
    Channels.suspect(saving.channels, slice.channel, now);
    again(saving, slice);
  }
};

/** Whole ms, as clocks count: a wake must find late what it was set for. */
const lateAfterMs = (saving: Saving, attempts: number): number =>
  Math.ceil(Math.min(LATE_MAX_MS, Math.max(LATE_MIN_MS, DELAYS * saving.ackMs) * 2 ** Math.max(0, attempts - 1)));

/** What a late channel has goes to others at once, with all that waits behind the late slice. */
export const checkLate = (saving: Saving, now: number): void => {
  if (!isSending(saving)) return;
  for (const slice of Slices.heads(saving.slices)) {
    if (slice.channel === null || now - slice.sentAt < lateAfterMs(saving, slice.attempts)) continue;
    const { channel, channelEpoch } = slice;
    Channels.suspect(saving.channels, channel, now);
    for (const other of [...saving.slices.byItem.values()].reverse())
      if (
        other.channel === channel &&
        other.channelEpoch === channelEpoch &&
        other !== slice &&
        other.attempts <= slice.attempts
      )
        again(saving, other);
    again(saving, slice);
  }
};

export const workerUp = (saving: Saving, worker: string): void => {
  for (const lane of Channels.workerUp(saving.channels, worker)) releaseLane(saving, lane.channel);
};

export const workerDown = (saving: Saving, worker: string): void => {
  for (const lane of Channels.workerDown(saving.channels, worker)) releaseLane(saving, lane.channel);
};

// Backwards, since each goes to the front of those that wait.
const releaseLane = (saving: Saving, channel: number): void => {
  for (const slice of [...saving.slices.byItem.values()].reverse()) if (slice.channel === channel) again(saving, slice);
};

/** Everything in flight may be lost: the link broke. */
export const linkRestored = (saving: Saving): void => {
  for (const slice of [...saving.slices.byItem.values()].reverse()) again(saving, slice);
};

/** When time alone changes something here, not later than `at`. */
export const nextWake = (saving: Saving, now: number, at: number): number => {
  let next = at;
  if (!isSending(saving)) return next;
  for (const slice of Slices.heads(saving.slices))
    next = Math.min(next, Math.max(now, slice.sentAt + lateAfterMs(saving, slice.attempts)));
  if (isPaced(saving) && saving.slices.waiting.length > 0 && saving.pace.tokens < 0)
    next = Math.min(next, Math.max(now, Pace.payday(saving.pace)));
  return next;
};
