/**
 * Which packets still count (R2, R7), and which items of the newest round are applied. Called once per packet, so plain numbers
 * and one bit per item.
 *
 * What must survive the process lies in `words`, which the shell may map from a file: a loader that is restarted goes on with it.
 * Each bit is set after its item is in the guest's memory and before it is acknowledged, and old bits are cleared before the
 * round is raised: at whatever instant the process dies, no bit says more than is true.
 *
 *     word 0 the newest round   1 words of bits in use   2... one bit per item of that round
 */
import { type Address, DEVICE_STATE_BYTES_MAX, PAGE_BYTES } from "@godwit/protocol";

export interface Fence {
  readonly migration: string;
  readonly epoch: number;
  /** More items than the checks and pages and slices together cannot be in a round: a forged number must not reach beyond the bits. */
  readonly itemsMax: number;
  readonly words: Uint32Array;
  dropped: number;
  /** Counters of what was applied. */
  pages: number;
  normalPages: number;
  wireBytes: number;
}

export type Verdict = "apply" | "other migration" | "other epoch" | "older round" | "item out of range";

const ROUND = 0;
const WORDS_USED = 1;
const FIRST = 2;

/** A check for each page, a page for each item, and as many repairs; besides, device state in pieces of a page where the server's messages are small. */
const itemsMaxOf = (pages: number): number => 3 * pages + DEVICE_STATE_BYTES_MAX / PAGE_BYTES;

/** Words that the fence of a guest of so many pages needs. A file of them is sparse: a round touches what it has items. */
export const wordsOf = (pages: number): number => FIRST + Math.ceil(itemsMaxOf(pages) / 32);

/** Of a fence that has no bit for any item, so lets nothing in. */
export const CLOSED: Uint32Array = new Uint32Array(FIRST);

/** `words`: all 0 for a new session, or what a former life of the loader left. */
export const make = (
  migration: string,
  epoch: number,
  pages: number,
  words: Uint32Array = new Uint32Array(wordsOf(pages)),
): Fence => ({
  migration,
  epoch,
  itemsMax: Math.min(itemsMaxOf(pages), (words.length - FIRST) * 32),
  words,
  dropped: 0,
  pages: 0,
  normalPages: 0,
  wireBytes: 0,
});

/** What it shows stays, and nothing is let in any more: its words, which may be a file's, are no longer needed. */
export const close = (fence: Fence): Fence => ({ ...fence, itemsMax: 0, words: fence.words.slice(0, FIRST) });

/** The newest round seen; packets of older ones are dropped. 0: none yet. */
export const roundOf = (fence: Fence): number => fence.words[ROUND]!;

/** Whether a packet may touch the guest's memory, if it can be applied at all. */
export const admit = (fence: Fence, packet: Address): Verdict => {
  if (packet.migration !== fence.migration) return "other migration";
  if (packet.epoch !== fence.epoch) return "other epoch";
  if (packet.round < roundOf(fence)) return "older round";
  if (packet.item >= fence.itemsMax) return "item out of range";
  return "apply";
};

/**
 * Whether an item of this round is in the guest's memory already: a second copy is acknowledged, and not applied. It can differ from
 * the first only in pages that were written meanwhile, and those are dirty in the next round (R2).
 */
export const isApplied = (fence: Fence, { round, item }: { readonly round: number; readonly item: number }): boolean =>
  round === roundOf(fence) && (fence.words[FIRST + (item >>> 5)]! & (1 << (item & 31))) !== 0;

/**
 * Notes that an admitted item is in the guest's memory. The first one of a newer round closes the older ones; a packet that could not
 * be applied does not: a forged one would cut off the round that is under way.
 */
export const applied = (fence: Fence, { round, item }: { readonly round: number; readonly item: number }): void => {
  const { words } = fence;
  if (round > roundOf(fence)) {
    words.fill(0, FIRST, FIRST + words[WORDS_USED]!);
    words[WORDS_USED] = 0;
    words[ROUND] = round;
  }
  const word = item >>> 5;
  if (word >= words[WORDS_USED]!) words[WORDS_USED] = word + 1;
  words[FIRST + word] = words[FIRST + word]! | (1 << (item & 31));
};

/** Everything the manifest promises is here. Items behind those are repairs, which it could not know. */
export const holds = (fence: Fence, manifest: { readonly round: number; readonly items: number }): boolean => {
  // A last round without a single item sends no packet, so the fence may still stand at the round before.
  if (manifest.items === 0) return roundOf(fence) <= manifest.round;
  if (roundOf(fence) !== manifest.round || manifest.items > fence.itemsMax) return false;
  const whole = manifest.items >>> 5;
  for (let word = 0; word < whole; word++) if (fence.words[FIRST + word] !== 0xffff_ffff) return false;
  const rest = (1 << (manifest.items & 31)) - 1;
  return ((fence.words[FIRST + whole] ?? 0) & rest) >>> 0 === rest >>> 0;
};
