/**
 * Which packets still count (R2, R7), and which items of the newest round are applied. Called once per packet, so plain numbers
 * and one bit per item.
 */
import { type Address, DEVICE_STATE_BYTES_MAX, PAGE_BYTES } from "@godwit/protocol";

export interface Fence {
  readonly migration: string;
  readonly epoch: number;
  /** The newest round seen; packets of older ones are dropped. */
  round: number;
  /** More items than pages and slices together cannot be in a round: a forged number must not make the bitmap grow. */
  readonly itemsMax: number;
  applied: Uint32Array;
  appliedItems: number;
  dropped: number;
  /** Counters of what was applied. */
  pages: number;
  normalPages: number;
  wireBytes: number;
}

export type Verdict = "apply" | "other migration" | "other epoch" | "older round" | "item out of range";

/** Items whose bits are held from the start; the bitmap doubles as they come. */
const ITEMS_AT_FIRST = 1024;

export const make = (migration: string, epoch: number, pages: number): Fence => ({
  migration,
  epoch,
  round: 0,
  // The least that an item holds is a page, or a page's worth of device state where the server's messages are small.
  itemsMax: pages + DEVICE_STATE_BYTES_MAX / PAGE_BYTES,
  applied: new Uint32Array(ITEMS_AT_FIRST / 32),
  appliedItems: 0,
  dropped: 0,
  pages: 0,
  normalPages: 0,
  wireBytes: 0,
});

/** Whether a packet may touch the guest's memory, if it can be applied at all. */
export const admit = (fence: Fence, packet: Address): Verdict => {
  if (packet.migration !== fence.migration) return "other migration";
  if (packet.epoch !== fence.epoch) return "other epoch";
  if (packet.round < fence.round) return "older round";
  if (packet.item >= fence.itemsMax) return "item out of range";
  return "apply";
};

/**
 * Notes that an admitted item is in the guest's memory; false for one that was noted before: copies count once. The first one of a newer round closes the older ones; a
 * packet that could not be applied does not: a forged one would cut off the round that is under way.
 */
export const applied = (fence: Fence, { round, item }: { readonly round: number; readonly item: number }): boolean => {
  if (round > fence.round) {
    fence.round = round;
    fence.applied.fill(0);
    fence.appliedItems = 0;
  }
  const word = item >>> 5;
  if (word >= fence.applied.length) {
    const larger = new Uint32Array(Math.max(word + 1, fence.applied.length * 2));
    larger.set(fence.applied);
    fence.applied = larger;
  }
  const bit = 1 << (item & 31);
  if ((fence.applied[word]! & bit) !== 0) return false;
  fence.applied[word] = fence.applied[word]! | bit;
  fence.appliedItems++;
  return true;
};

/** Everything the manifest promises is here. */
export const holds = (fence: Fence, manifest: { readonly round: number; readonly items: number }): boolean =>
  // A last round without a single item sends no packet, so the fence may still stand at the round before.
  manifest.items === 0
    ? fence.round <= manifest.round
    : fence.round === manifest.round && fence.appliedItems === manifest.items;
