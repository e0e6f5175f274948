/** Says what happened to a page that does not hold what its ledger entry promises. Slow and thorough: only bad pages come here. */
import { fillPage, isZero, PAGE_WORDS, type PageRecipe, pageMatches, wordOf } from "./page.ts";

/**
 * - `lost`: zeros where there should be data: the page never arrived. (An older version of a page may itself be zeros;
 *   that case cannot be told apart and is `lost` too.)
 * - `stale`: exactly an older version of this page
 * - `torn`: each word is that of the expected or an older version, but not all of one
 * - `foreign`: something this page never held: another page, a flipped bit, a version from the future
 */
export type Damage = "lost" | "stale" | "torn" | "foreign";

/** Versions searched for an exact older copy: a page of a hot working set is written a few thousand times during a migration; at 50 ns each this is 3 ms. */
export const STALE_SEARCH_VERSIONS = 65_536;
/** Versions searched for the parts of a mixture: neighbours in time, and 2 us each. */
export const TORN_SEARCH_VERSIONS = 512;

/** The damage of the PAGE_WORDS words from `offset`, which are known not to be `page` at `expected`. */
export const diagnose = (
  recipe: PageRecipe,
  words: Int32Array,
  offset: number,
  page: number,
  expected: number,
): Damage => {
  if (isZero(words, offset)) return "lost";
  if (holdsOlderVersion(recipe, words, offset, page, expected)) return "stale";
  if (isMixture(recipe, words, offset, page, expected)) return "torn";
  return "foreign";
};

const holdsOlderVersion = (
  recipe: PageRecipe,
  words: Int32Array,
  offset: number,
  page: number,
  expected: number,
): boolean => {
  const oldest = Math.max(1, expected - STALE_SEARCH_VERSIONS);
  const first = words[offset];
  for (let version = expected - 1; version >= oldest; version--) {
    if (wordOf(recipe, page, version, 0) === first && pageMatches(recipe, words, offset, page, version)) return true;
  }
  return false;
};

/** Strikes out the words each version explains; a mixture leaves none. */
const isMixture = (recipe: PageRecipe, words: Int32Array, offset: number, page: number, expected: number): boolean => {
  const candidate = new Int32Array(PAGE_WORDS);
  const explained = new Uint8Array(PAGE_WORDS);
  let left = PAGE_WORDS;
  const strike = (version: number): void => {
    fillPage(recipe, candidate, 0, page, version);
    for (let index = 0; index < PAGE_WORDS; index++) {
      if (explained[index] === 0 && candidate[index] === words[offset + index]) {
        explained[index] = 1;
        left--;
      }
    }
  };
  const oldest = Math.max(1, expected - TORN_SEARCH_VERSIONS);
  for (let version = expected; version >= oldest && left > 0; version--) strike(version);
  // Version 0: a page that arrived only in part leaves zeros for the rest.
  if (left > 0) strike(0);
  return left === 0;
};
