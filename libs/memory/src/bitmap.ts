/**
 * One bit for each page of a block, bit p % 32 of word p / 32.
 *
 * Invariant: bits beyond `pageCount` in the last word are 0, so that words can be counted and compared as they are.
 * `words` may lie on a SharedArrayBuffer; two threads must then not change bits of the same word at once.
 */
export interface Bitmap {
  readonly words: Uint32Array;
  readonly pageCount: number;
}

/** A run of pages whose bits are set. */
export interface PageRun {
  readonly first: number;
  readonly count: number;
}

const WORD_BITS = 32;

/** Words that a bitmap of that many pages has. */
export const wordCount = (pageCount: number): number => Math.ceil(pageCount / WORD_BITS);

/** A bitmap with no bit set. */
export const make = (pageCount: number): Bitmap => ({ words: new Uint32Array(wordCount(pageCount)), pageCount });

/** A bitmap with no bit set that several threads can see. */
export const makeShared = (pageCount: number): Bitmap => ({
  words: new Uint32Array(new SharedArrayBuffer(wordCount(pageCount) * Uint32Array.BYTES_PER_ELEMENT)),
  pageCount,
});

export const setAll = (bitmap: Bitmap): void => {
  setRange(bitmap, 0, bitmap.pageCount);
};

export const clearAll = (bitmap: Bitmap): void => {
  bitmap.words.fill(0);
};

/** Bits of the word that a range covers: from bit `from` up to, not including, bit `to` (1 to 32). */
const wordMask = (from: number, to: number): number => ((-1 << from) & (-1 >>> (WORD_BITS - to))) >>> 0;

const checkRange = (bitmap: Bitmap, first: number, count: number): void => {
  if (first < 0 || count < 0 || first + count > bitmap.pageCount) {
    throw new RangeError(`pages ${first}+${count} are not within a bitmap of ${bitmap.pageCount}`);
  }
};

/** Sets the bits of `count` pages; returns how many of them were clear. Throws RangeError when they are not all within the bitmap. */
export const setRange = (bitmap: Bitmap, first: number, count: number): number => {
  checkRange(bitmap, first, count);
  const { words } = bitmap;
  const end = first + count;
  let added = 0;
  for (let page = first; page < end; ) {
    const word = page >>> 5;
    const next = Math.min(end, (word + 1) * WORD_BITS);
    const mask = wordMask(page & 31, next - word * WORD_BITS);
    added += bitCount(mask & ~words[word]!);
    words[word]! |= mask;
    page = next;
  }
  return added;
};

/** Clears the bits of `count` pages. Throws RangeError when they are not all within the bitmap. */
export const clearRange = (bitmap: Bitmap, first: number, count: number): void => {
  checkRange(bitmap, first, count);
  const { words } = bitmap;
  const end = first + count;
  for (let page = first; page < end; ) {
    const word = page >>> 5;
    const next = Math.min(end, (word + 1) * WORD_BITS);
    words[word]! &= ~wordMask(page & 31, next - word * WORD_BITS);
    page = next;
  }
};

/** Whether a page's bit is set; false for a page outside the bitmap. */
export const test = (bitmap: Bitmap, page: number): boolean =>
  page >= 0 && page < bitmap.pageCount && (bitmap.words[page >>> 5]! & (1 << (page & 31))) !== 0;

/** Whether the bits of all `count` pages are set. Throws RangeError when they are not all within the bitmap. */
export const hasRange = (bitmap: Bitmap, first: number, count: number): boolean => {
  checkRange(bitmap, first, count);
  const end = first + count;
  for (let page = first; page < end; ) {
    const word = page >>> 5;
    const next = Math.min(end, (word + 1) * WORD_BITS);
    const mask = wordMask(page & 31, next - word * WORD_BITS);
    if ((bitmap.words[word]! & mask) >>> 0 !== mask) return false;
    page = next;
  }
  return true;
};

/** Bits set in a word: sums of 2, 4, then 8 bits side by side, added up by the multiplication. */
const bitCount = (bits: number): number => {
  let word = bits - ((bits >>> 1) & 0x55555555);
  word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
  return Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
};

/** Whether the bits of all `count` pages are clear. Throws RangeError when they are not all within the bitmap. */
export const isClearRange = (bitmap: Bitmap, first: number, count: number): boolean => {
  checkRange(bitmap, first, count);
  const end = first + count;
  for (let page = first; page < end; ) {
    const word = page >>> 5;
    const next = Math.min(end, (word + 1) * WORD_BITS);
    if ((bitmap.words[word]! & wordMask(page & 31, next - word * WORD_BITS)) !== 0) return false;
    page = next;
  }
  return true;
};

/** Number of bits set. */
export const count = (bitmap: Bitmap): number => {
  let total = 0;
  for (let index = 0; index < bitmap.words.length; index++) total += bitCount(bitmap.words[index]!);
  return total;
};

export const isEmpty = (bitmap: Bitmap): boolean => bitmap.words.every((word) => word === 0);

/** Sets in `target` every bit that is set in `source`. Throws RangeError when they are not of one length. */
export const orInto = (target: Bitmap, source: Bitmap): void => {
  if (target.pageCount !== source.pageCount) {
    throw new RangeError(`bitmaps of ${target.pageCount} and ${source.pageCount} pages`);
  }
  for (let word = 0; word < target.words.length; word++) target.words[word]! |= source.words[word]!;
};

/** Clears in `target` every bit that is not set in `source`. Throws RangeError when they are not of one length. */
export const andInto = (target: Bitmap, source: Bitmap): void => {
  if (target.pageCount !== source.pageCount) {
    throw new RangeError(`bitmaps of ${target.pageCount} and ${source.pageCount} pages`);
  }
  for (let word = 0; word < target.words.length; word++) target.words[word]! &= source.words[word]!;
};

/** A new bitmap with every bit that is clear in this one. */
export const inverse = (bitmap: Bitmap): Bitmap => {
  const all = make(bitmap.pageCount);
  setAll(all);
  for (let word = 0; word < all.words.length; word++) all.words[word]! &= ~bitmap.words[word]!;
  return all;
};

/** A new bitmap with every bit that is set in one of the two. */
export const union = (one: Bitmap, other: Bitmap): Bitmap => {
  const both = { words: one.words.slice(), pageCount: one.pageCount };
  orInto(both, other);
  return both;
};

/** The first page at or after `from` whose bit is set, or `pageCount`. Empty words are skipped at one comparison each. */
const nextSet = (bitmap: Bitmap, from: number): number => next(bitmap, from, bitmap.pageCount, 0);
/** The first page at or after `from` and before `end` whose bit is clear, or `end`. */
const nextClear = (bitmap: Bitmap, from: number, end: number): number => next(bitmap, from, end, -1);

const next = ({ words }: Bitmap, from: number, end: number, flip: 0 | -1): number => {
  if (from >= end) return end;
  const wordsEnd = wordCount(end);
  let index = from >>> 5;
  let word = (words[index]! ^ flip) & (-1 << (from & 31));
  while (word === 0) {
    if (++index >= wordsEnd) return end;
    word = words[index]! ^ flip;
  }
  // word & -word leaves the lowest bit alone; it may lie beyond the end, within the end's word, hence the minimum.
  return Math.min(end, index * WORD_BITS + 31 - Math.clz32(word & -word));
};

/**
 * The next run of set bits at or after `from`, cut at `maxPages`; null when there is none. Go on from `first + count`.
 * Throws RangeError for a negative `from` or a `maxPages` below 1.
 */
export const nextRun = (bitmap: Bitmap, from: number, maxPages: number): PageRun | null => {
  if (from < 0 || maxPages < 1) throw new RangeError(`from page ${from}, at most ${maxPages} pages`);
  const first = nextSet(bitmap, from);
  if (first === bitmap.pageCount) return null;
  // Looking no further than the cut keeps many short steps through one long run linear.
  const cut = Math.min(bitmap.pageCount, first + maxPages);
  return { first, count: nextClear(bitmap, first, cut) - first };
};

/** Sets, with each bit that is set, all bits of its group of `pages` pages. */
export const widen = (bitmap: Bitmap, pages: number): void => {
  if (pages === 1) return;
  for (let run = nextRun(bitmap, 0, bitmap.pageCount); run !== null; ) {
    const first = run.first - (run.first % pages);
    const end = Math.min(bitmap.pageCount, Math.ceil((run.first + run.count) / pages) * pages);
    setRange(bitmap, first, end - first);
    run = nextRun(bitmap, end, bitmap.pageCount);
  }
};

/** As bytes: page n is bit n % 8 of byte n / 8, in at least `length` bytes. Words are little-endian in memory on every host that Node runs a guest on. */
export const toBytes = ({ words }: Bitmap, length: number): Uint8Array => {
  const bytes = new Uint8Array(Math.max(length, words.byteLength));
  bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength));
  return bytes;
};

/** The other way round; null when bits beyond `pageCount` are set, or bytes are missing. */
export const fromBytes = (bytes: Uint8Array, pageCount: number): Bitmap | null => {
  const bitmap = make(pageCount);
  const needed = Math.ceil(pageCount / 8);
  if (bytes.length < needed) return null;
  for (let at = needed; at < bytes.length; at++) if (bytes[at] !== 0) return null;
  if ((pageCount & 7) !== 0 && bytes[needed - 1]! >>> (pageCount & 7) !== 0) return null;
  new Uint8Array(bitmap.words.buffer).set(bytes.subarray(0, needed));
  return bitmap;
};
