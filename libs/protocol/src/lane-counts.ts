/** By which lane the packets of a migration have come: what its destination counts, and shows. */
import type { Lane, LaneInfo, LanePurpose } from "./direct-lane.ts";
import { CHANNELS_MAX } from "./limits.ts";

/** By purpose and channel. Mutable, and its owner's alone. */
export type LaneCounts = Map<string, LaneInfo & { lane: Lane; nats: number; direct: number }>;

/** `subject`: that of the packet's channel, whose last word is its number; that of urgent pages has none, and counts as channel 0. */
export const countPacket = (counts: LaneCounts, purpose: LanePurpose, lane: Lane, subject: string): void => {
  const channel = Number(/\.(\d{1,3})$/.exec(subject)?.[1] ?? 0);
  // Without credentials anybody may make up a subject.
  if (channel >= CHANNELS_MAX) return;
  const key = `${purpose} ${channel}`;
  let count = counts.get(key);
  if (count === undefined) {
    count = { purpose, channel, lane, nats: 0, direct: 0 };
    counts.set(key, count);
  }
  count.lane = lane;
  count[lane]++;
};

export const listOfLanes = (counts: LaneCounts): ReadonlyArray<LaneInfo> =>
  [...counts.values()].map((count) => ({ ...count }));
