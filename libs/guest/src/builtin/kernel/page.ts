/**
 * What every page of a builtin guest must hold, and the loops that write and check it.
 *
 * The content of page p at version v is a pure function of (seed, p, v) and fills the whole page. It is one 32-bit hash
 * `h`, bijective in v, expanded word by word:
 *
 *     zero            0 0 0 0 ...
 *     compressible    e(0) e(1) e(2) e(3) ... e(15) and again; every fourth word is e(i) instead      3.7:1 with zstd
 *     random          e(0) e(1) e(2) ... e(1023)                                                       incompressible
 *     counted         e(0) d(1) d(2) ... d(255) e(256) d(257) ... d(1023)                              as random, and a delta of some bytes
 *
 * with e(i) a bijection of h for each i, and d(i) that of version 0. Two versions of one page of the same kind therefore differ in *every*
 * word, save for those of the last kind, which differ in four: no mixture of two of them, however small, can pass for one of them.
 *
 * Trap: versions start at 1. Version 0 is the page that was never filled: zeros.
 */

/** Bytes of a page; equal to `@godwit/memory`'s PAGE_BYTES, repeated so that vCPU threads start without loading that package. */
export const PAGE_BYTES = 4096;
/** 32-bit words of a page: the unit of filling and checking. */
export const PAGE_WORDS = PAGE_BYTES / 4;

/** What a page is made of, percent; all add up to 100. */
export interface PageMix {
  readonly zero: number;
  readonly compressible: number;
  readonly random: number;
  /** Absent: none. */
  readonly counted?: number;
}

/** A mix with the seed, as the loops want it: the bounds are compared with a hash of 0..2^32-1. */
export interface PageRecipe {
  readonly seed: number;
  readonly zeroBelow: number;
  readonly compressibleBelow: number;
  readonly randomBelow: number;
}

const HASHES = 2 ** 32;

/** The recipe of a guest; `seed` is an unsigned 32-bit number. */
export const recipeOf = (seed: number, mix: PageMix): PageRecipe => ({
  seed,
  zeroBelow: (HASHES * mix.zero) / 100,
  compressibleBelow: (HASHES * (mix.zero + mix.compressible)) / 100,
  randomBelow: (HASHES * (mix.zero + mix.compressible + mix.random)) / 100,
});

export const ZERO = 0;
export const COMPRESSIBLE = 1;
export const RANDOM = 2;
export const COUNTED = 3;
export type PageKind = typeof ZERO | typeof COMPRESSIBLE | typeof RANDOM | typeof COUNTED;

/** Odd, so that multiples of it visit every 32-bit number: the golden ratio's fraction. */
const STEP = 0x9e3779b9 | 0;
/** A compressible page repeats this many words (a power of two). */
const PATTERN_MASK = 15;
/** ... save each word whose index ends in these bits. */
const FRESH_MASK = 3;
/** Of a counted page the words whose index has none of these bits are its version's own. */
const COUNTED_MASK = 255;

/** A bijection on 32-bit numbers whose output looks like nothing to a compressor. */
const scramble = (x: number): number => {
  let y = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  y = Math.imul(y ^ (y >>> 15), 0x846ca68b | 0);
  return y ^ (y >>> 16);
};

/** The hash of (seed, page, version): for a given page, no two versions share one. */
const hashOf = (recipe: PageRecipe, page: number, version: number): number =>
  scramble(scramble(scramble(recipe.seed | 0) ^ (page | 0)) ^ (version | 0));

const kindOfHash = (recipe: PageRecipe, hash: number): PageKind => {
  const draw = scramble(hash ^ STEP) >>> 0;
  if (draw < recipe.zeroBelow) return ZERO;
  if (draw < recipe.compressibleBelow) return COMPRESSIBLE;
  return draw < recipe.randomBelow ? RANDOM : COUNTED;
};

/** What the page is made of at this version; version 0 is zero. */
export const kindOf = (recipe: PageRecipe, page: number, version: number): PageKind =>
  version === 0 ? ZERO : kindOfHash(recipe, hashOf(recipe, page, version));

/** One word of a page, for those who need few of them. */
export const wordOf = (recipe: PageRecipe, page: number, version: number, index: number): number => {
  if (version === 0) return 0;
  const hash = hashOf(recipe, page, version);
  const kind = kindOfHash(recipe, hash);
  if (kind === ZERO) return 0;
  const fresh = kind !== COMPRESSIBLE || (index & FRESH_MASK) === FRESH_MASK;
  const own = kind !== COUNTED || (index & COUNTED_MASK) === 0;
  return expand(((own ? hash : hashOf(recipe, page, 0)) + Math.imul(fresh ? index : index & PATTERN_MASK, STEP)) | 0);
};

/** e(i) of the drawing above, given h + i * STEP. */
const expand = (x: number): number => {
  const y = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
  return y ^ (y >>> 13);
};

/** Writes the content of `page` at `version` over the PAGE_WORDS words from `offset` (in words) of `words`. */
export const fillPage = (
  recipe: PageRecipe,
  words: Int32Array,
  offset: number,
  page: number,
  version: number,
): void => {
  const hash = hashOf(recipe, page, version);
  const kind = version === 0 ? ZERO : kindOfHash(recipe, hash);
  if (kind === ZERO) {
    words.fill(0, offset, offset + PAGE_WORDS);
    return;
  }
  const mask = kind === COMPRESSIBLE ? PATTERN_MASK : -1;
  const shared = kind === COUNTED ? hashOf(recipe, page, 0) : hash;
  for (let index = 0; index < PAGE_WORDS; index++) {
    const at = (index & FRESH_MASK) === FRESH_MASK ? index : index & mask;
    const x = (((index & COUNTED_MASK) === 0 ? hash : shared) + Math.imul(at, STEP)) | 0;
    const y = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
    words[offset + index] = y ^ (y >>> 13);
  }
};

/** Whether the PAGE_WORDS words from `offset` hold exactly `page` at `version`, every byte of them. */
export const pageMatches = (
  recipe: PageRecipe,
  words: Int32Array,
  offset: number,
  page: number,
  version: number,
): boolean => {
  const hash = hashOf(recipe, page, version);
  const kind = version === 0 ? ZERO : kindOfHash(recipe, hash);
  if (kind === ZERO) return isZero(words, offset);
  const mask = kind === COMPRESSIBLE ? PATTERN_MASK : -1;
  const shared = kind === COUNTED ? hashOf(recipe, page, 0) : hash;
  for (let index = 0; index < PAGE_WORDS; index++) {
    const at = (index & FRESH_MASK) === FRESH_MASK ? index : index & mask;
    const x = (((index & COUNTED_MASK) === 0 ? hash : shared) + Math.imul(at, STEP)) | 0;
    const y = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
    if (words[offset + index] !== (y ^ (y >>> 13))) return false;
  }
  return true;
};

/** Whether the PAGE_WORDS words from `offset` are all zero. */
export const isZero = (words: Int32Array, offset: number): boolean => {
  for (let index = offset; index < offset + PAGE_WORDS; index++) if (words[index] !== 0) return false;
  return true;
};
