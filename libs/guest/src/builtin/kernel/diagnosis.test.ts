import * as fc from "fast-check";
import { assert, describe, it } from "vitest";
import { diagnose, STALE_SEARCH_VERSIONS } from "./diagnosis.ts";
import { fillPage, kindOf, PAGE_WORDS, recipeOf, ZERO } from "./page.ts";

/** No zero pages, so that each version differs from the others. */
const recipe = recipeOf(11, { zero: 0, compressible: 50, random: 50 });
const PAGE = 1234;

const pageAt = (version: number, page = PAGE): Int32Array => {
  const words = new Int32Array(PAGE_WORDS);
  fillPage(recipe, words, 0, page, version);
  return words;
};

describe("the diagnosis of a bad page", () => {
  it("says lost when zeros are where data should be", () => {
    assert.strictEqual(diagnose(recipe, new Int32Array(PAGE_WORDS), 0, PAGE, 5), "lost");
  });

  it("says stale for any older version", () => {
    const versions = fc.integer({ min: 1, max: 3000 });
    fc.assert(
      fc.property(versions, versions, (one, other) => {
        fc.pre(one !== other);
        assert.strictEqual(diagnose(recipe, pageAt(Math.min(one, other)), 0, PAGE, Math.max(one, other)), "stale");
      }),
    );
  });

  it("says stale for old data where zeros should be", () => {
    const zeros = recipeOf(11, { zero: 50, compressible: 0, random: 50 });
    let page = 0;
    while (kindOf(zeros, page, 1) === ZERO || kindOf(zeros, page, 2) !== ZERO) page++;
    const words = new Int32Array(PAGE_WORDS);
    fillPage(zeros, words, 0, page, 1);
    assert.strictEqual(diagnose(zeros, words, 0, page, 2), "stale");
  });

  it("says torn for two versions mixed at any word", () => {
    const cuts = fc.integer({ min: 1, max: PAGE_WORDS - 1 });
    const versions = fc.integer({ min: 0, max: 8 });
    fc.assert(
      fc.property(cuts, versions, (cut, old) => {
        const words = pageAt(9);
        words.set(pageAt(old).subarray(cut), cut);
        assert.strictEqual(diagnose(recipe, words, 0, PAGE, 9), "torn");
      }),
    );
  });

  it("says torn for three versions in a page, none of them the expected one", () => {
    const words = pageAt(3);
    words.set(pageAt(4).subarray(100, 200), 100);
    words.set(pageAt(6).subarray(1023), 1023);
    assert.strictEqual(diagnose(recipe, words, 0, PAGE, 9), "torn");
  });

  it("says foreign for a flipped bit, another page, and a version from the future", () => {
    const flipped = pageAt(9);
    flipped[512]! ^= 1;
    assert.strictEqual(diagnose(recipe, flipped, 0, PAGE, 9), "foreign");
    assert.strictEqual(diagnose(recipe, pageAt(9, PAGE + 1), 0, PAGE, 9), "foreign");
    assert.strictEqual(diagnose(recipe, pageAt(10), 0, PAGE, 9), "foreign");
  });

  it("looks at the words it is pointed to", () => {
    const words = new Int32Array(3 * PAGE_WORDS);
    words.set(pageAt(4), PAGE_WORDS);
    assert.strictEqual(diagnose(recipe, words, PAGE_WORDS, PAGE, 5), "stale");
  });

  it("searches as far back as it promises", () => {
    const expected = STALE_SEARCH_VERSIONS + 10;
    assert.strictEqual(diagnose(recipe, pageAt(10), 0, PAGE, expected), "stale");
    assert.strictEqual(diagnose(recipe, pageAt(9), 0, PAGE, expected), "foreign");
  });
});
