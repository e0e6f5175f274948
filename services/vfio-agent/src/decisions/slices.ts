/**
 * Slices of device state that were read and are not acknowledged: what makes the agent at the source responsible for every byte (R1).
 * Streams are numbered (`dataStream`, `configStream`); within a stream slices follow each other without a gap, so that the destination
 * can put them in order again whatever way they took (R4).
 *
 * Mutable on purpose, and owned by one state.
 */

export interface Slice {
  readonly item: number;
  readonly stream: number;
  /** Where it stands in its stream, bytes. */
  readonly offset: number;
  readonly bytes: number;
  /** null: it waits to be handed out, again or for the first time. */
  channel: number | null;
  channelEpoch: number;
  firstSentAt: number;
  sentAt: number;
  attempts: number;
}

export interface Stream {
  readonly stream: number;
  /** Bytes cut so far: where the next slice begins. */
  end: number;
  /** Bytes whose slices are acknowledged. */
  acknowledgedBytes: number;
  /** Slices not acknowledged, by offset, ascending: the first is the one that all others wait for. */
  readonly open: Slice[];
  /** All bytes below are acknowledged: their memory may hold others. */
  floor: number;
}

export interface Slices {
  readonly sliceBytesMax: number;
  nextItem: number;
  readonly streams: Map<number, Stream>;
  readonly byItem: Map<number, Slice>;
  /** To be handed out, in order. */
  readonly waiting: Slice[];
  resent: number;
}

export const make = (sliceBytesMax: number): Slices => ({
  sliceBytesMax,
  nextItem: 0,
  streams: new Map(),
  byItem: new Map(),
  waiting: [],
  resent: 0,
});

export const streamOf = (slices: Slices, stream: number): Stream => {
  const known = slices.streams.get(stream);
  if (known !== undefined) return known;
  const made: Stream = { stream, end: 0, acknowledgedBytes: 0, open: [], floor: 0 };
  slices.streams.set(stream, made);
  return made;
};

/** Notes bytes that were read behind those of before. */
export const append = (slices: Slices, stream: number, bytes: number): void => {
  const to = streamOf(slices, stream);
  for (let left = bytes; left > 0; ) {
    const count = Math.min(left, slices.sliceBytesMax);
    const slice: Slice = {
      item: slices.nextItem++,
      stream,
      offset: to.end,
      bytes: count,
      channel: null,
      channelEpoch: 0,
      firstSentAt: 0,
      sentAt: 0,
      attempts: 0,
    };
    to.end += count;
    to.open.push(slice);
    slices.byItem.set(slice.item, slice);
    slices.waiting.push(slice);
    left -= count;
  }
};

/** Bytes read and not acknowledged, of one stream. */
export const openBytes = (slices: Slices, stream: number): number => {
  const { end, acknowledgedBytes } = streamOf(slices, stream);
  return end - acknowledgedBytes;
};

/** Bytes from the first one that is not acknowledged to the last one read: what must stay where workers find it. */
export const heldBytes = (slices: Slices, stream: number): number => {
  const { end, floor } = streamOf(slices, stream);
  return end - floor;
};

/** The next slice to hand out on this lane; null: none waits. */
export const take = (
  slices: Slices,
  lane: { readonly channel: number; readonly epoch: number },
  now: number,
): Slice | null => {
  let slice = slices.waiting.shift();
  // An acknowledgement may have come from an earlier copy meanwhile.
  while (slice !== undefined && (slice.channel !== null || !slices.byItem.has(slice.item)))
    slice = slices.waiting.shift();
  if (slice === undefined) return null;
  slice.channel = lane.channel;
  slice.channelEpoch = lane.epoch;
  if (slice.attempts === 0) slice.firstSentAt = now;
  else slices.resent++;
  slice.sentAt = now;
  slice.attempts++;
  return slice;
};

/** The destination has written it to the device. Returns it, or null for one that is gone already. */
export const applied = (slices: Slices, item: number): Slice | null => {
  const slice = slices.byItem.get(item);
  if (slice === undefined) return null;
  slices.byItem.delete(item);
  const stream = streamOf(slices, slice.stream);
  const index = stream.open.indexOf(slice);
  stream.open.splice(index, 1);
  stream.acknowledgedBytes += slice.bytes;
  stream.floor = stream.open[0]?.offset ?? stream.end;
  return slice;
};

/** Its channel failed it, or it is late: it is handed out again, before what was never handed out. */
export const sendAgain = (slices: Slices, slice: Slice): void => {
  if (slice.channel === null) return;
  slice.channel = null;
  slices.waiting.unshift(slice);
};

/** The first slice of each stream, as far as it was handed out: only for it an acknowledgement is due, the others wait behind it. */
export const heads = (slices: Slices): Slice[] =>
  [...slices.streams.values()]
    .map(({ open }) => open[0])
    .filter((slice) => slice !== undefined && slice.channel !== null) as Slice[];

export const isEmpty = (slices: Slices): boolean => slices.byItem.size === 0;
