/**
 * Postcopy: which pages a guest begins without. The record's manifest says how many, and what their bitmaps sum up to; the loader asks the
 * RAM sender for the bitmaps themselves, piece by piece, before the guest may run.
 */
import { crc32 } from "node:zlib";
import * as Schema from "effect/Schema";
import { Epoch, MigrationId } from "./ids.ts";

/** The words of a RAMBlock's bitmap from `word` on, at most MISSING_WORDS_MAX. */
export const MissingPagesRequest = Schema.Struct({
  migration: MigrationId,
  epoch: Epoch,
  block: Schema.Natural,
  word: Schema.Natural,
});
export type MissingPagesRequest = typeof MissingPagesRequest.Type;

/** The round of pages that the destination asks for in a postcopy: no round of precopy gets there. */
export const POSTCOPY_ROUND = 2 ** 32 - 1;
/** Items of the urgent channel have numbers from here on, those of the background smaller ones. */
export const URGENT_ITEM_FIRST = 2 ** 31;

/** Words in one answer: 128 KiB, which is 4 GiB of guest memory, and fits every server's `max_payload` that a page's packets fit. */
export const MISSING_WORDS_MAX = 32_768;

/** What the bitmaps of all RAMBlocks, in the order of the offer, sum up to (crc32). */
export const digestOfBitmaps = (bitmaps: ReadonlyArray<Uint32Array>): number =>
  bitmaps.reduce((sum, words) => crc32(bytesOf(words), sum), 0);

const bytesOf = (words: Uint32Array): Uint8Array => new Uint8Array(words.buffer, words.byteOffset, words.byteLength);

/** The answer to a request: words as they stand in memory, little-endian on every host that runs a guest. Empty: there are none. */
export const encodeMissingWords = (words: Uint32Array, from: number, wordsMax: number): Uint8Array =>
  bytesOf(words.slice(from, from + Math.min(wordsMax, MISSING_WORDS_MAX)));

/** Writes an answer into `words` from `from` on. Returns how many it had; null when it does not fit, or has no whole words. */
export const decodeMissingWords = (bytes: Uint8Array, words: Uint32Array, from: number): number | null => {
  const count = bytes.length / Uint32Array.BYTES_PER_ELEMENT;
  if (!Number.isInteger(count) || count === 0 || from + count > words.length) return null;
  bytesOf(words).set(bytes, from * Uint32Array.BYTES_PER_ELEMENT);
  return count;
};
