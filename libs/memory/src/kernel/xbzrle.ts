/**
 * QEMU's XBZRLE: what changed between two contents of a page, as runs of equal bytes and of changed ones, in turn:
 *
 *     equal bytes (ULEB128), changed bytes (ULEB128), the changed bytes; again ...
 *
 * Equal bytes at the end are not named: a page that did not change is a delta without a byte. Lengths take one byte or two. QEMU's decoder
 * reads what is written here, and the other way round.
 */
import { PAGE_BYTES } from "../ram-block.ts";

const WORDS = PAGE_BYTES / 4;
/** A length below this takes one byte. */
const LONG_FROM = 0x80;

const lengthBytes = (length: number): number => (length < LONG_FROM ? 1 : 2);

/** Writes a length, which must be below 2^14, and returns where the next byte goes. */
const writeLength = (target: Uint8Array, at: number, length: number): number => {
  if (length < LONG_FROM) {
    target[at] = length;
    return at + 1;
  }
  target[at] = (length & 0x7f) | 0x80;
  target[at + 1] = length >>> 7;
  return at + 2;
};

/** The first byte from `at` on that differs, or PAGE_BYTES; most of a page is equal, so it goes by words. */
const nextDifference = (
  base: Uint8Array,
  page: Uint8Array,
  baseWords: Int32Array,
  pageWords: Int32Array,
  at: number,
) => {
  for (; at < PAGE_BYTES && (at & 3) !== 0; at++) if (base[at] !== page[at]) return at;
  let word = at >>> 2;
  while (word < WORDS && baseWords[word] === pageWords[word]) word++;
  if (word === WORDS) return PAGE_BYTES;
  at = word << 2;
  while (base[at] === page[at]) at++;
  return at;
};

/** All four bytes of a word are others than 0. */
const hasNoZero = (word: number): boolean => ((word - 0x01010101) & ~word & 0x80808080) === 0;

/** Where from `at` on a run of changed bytes ends. A single equal byte costs less within it than two more lengths do. */
const nextEquality = (base: Uint8Array, page: Uint8Array, baseWords: Int32Array, pageWords: Int32Array, at: number) => {
  for (;;) {
    // A page that has changed all over goes by words, too.
    while ((at & 3) === 0 && at < PAGE_BYTES && hasNoZero(baseWords[at >>> 2]! ^ pageWords[at >>> 2]!)) at += 4;
    if (at === PAGE_BYTES) return at;
    const isEqual = base[at] === page[at];
    if (isEqual && (at + 1 === PAGE_BYTES || base[at + 1] === page[at + 1])) return at;
    at++;
  }
};

/**
 * Writes the delta from `base` to `page` (each PAGE_BYTES, beginning at whole words of their memory) to `target` from 0 on. Returns its
 * bytes, or null when it would have more than `bytesMax`.
 */
export const encodeXbzrle = (
  base: Uint8Array,
  page: Uint8Array,
  target: Uint8Array,
  bytesMax: number,
): number | null => {
  const baseWords = new Int32Array(base.buffer, base.byteOffset, WORDS);
  const pageWords = new Int32Array(page.buffer, page.byteOffset, WORDS);
  let written = 0;
  let done = 0;
  for (;;) {
    const from = nextDifference(base, page, baseWords, pageWords, done);
    if (from === PAGE_BYTES) return written;
    const end = nextEquality(base, page, baseWords, pageWords, from + 1);
    const bytes = lengthBytes(from - done) + lengthBytes(end - from) + (end - from);
    if (written + bytes > bytesMax) return null;
    written = writeLength(target, writeLength(target, written, from - done), end - from);
    for (let at = from; at < end; at++) target[written++] = page[at]!;
    done = end;
  }
};

/**
 * Changes the page of PAGE_BYTES at `pageAt` of `pages` by the delta in `bytes[at .. end)`. False when those bytes are none: the page may
 * then be changed in part. Reads and writes nothing else.
 */
export const applyXbzrle = (bytes: Uint8Array, at: number, end: number, pages: Uint8Array, pageAt: number): boolean => {
  let done = 0;
  for (let isFirst = true; at < end; isFirst = false) {
    for (let run = 0; run < 2; run++) {
      if (at >= end) return false;
      let length = bytes[at++]!;
      if (length >= LONG_FROM) {
        // A second byte that adds nothing, or asks for a third, is another spelling of what is spelled in one way only.
        if (at >= end || bytes[at] === 0 || bytes[at]! >= LONG_FROM) return false;
        length = (length & 0x7f) | (bytes[at++]! << 7);
      }
      // Only the first run may be empty: a page may differ from its first byte on.
      if (length === 0 && !(isFirst && run === 0)) return false;
      if (done + length > PAGE_BYTES) return false;
      if (run === 1) {
        if (at + length > end) return false;
        for (let i = 0; i < length; i++) pages[pageAt + done + i] = bytes[at + i]!;
        at += length;
      }
      done += length;
    }
  }
  return true;
};
