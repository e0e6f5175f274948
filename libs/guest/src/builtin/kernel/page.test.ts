import * as memory from "@godwit/memory";
import * as fc from "fast-check";
import { assert, describe, it } from "vitest";
import {
  COMPRESSIBLE,
  COUNTED,
  fillPage,
  isZero,
  kindOf,
  PAGE_BYTES,
  PAGE_WORDS,
  pageMatches,
  RANDOM,
  recipeOf,
  wordOf,
  ZERO,
} from "./page.ts";

const MIX = { zero: 30, compressible: 30, random: 20, counted: 20 };
const seeds = fc.integer({ min: 0, max: 2 ** 32 - 1 });
/** Beyond what 31 bits hold: a guest of 1 TiB has 2^28 pages, a page of a hot working set up to 2^32 versions. */
const pages = fc.integer({ min: 0, max: 2 ** 28 });
const versions = fc.integer({ min: 1, max: 2 ** 32 - 1 });

const pageOf = (seed: number, page: number, version: number): Int32Array => {
  const words = new Int32Array(PAGE_WORDS).fill(-1);
  fillPage(recipeOf(seed, MIX), words, 0, page, version);
  return words;
};

describe("page content", () => {
  it("has the page size of the rest of godwit", () => {
    assert.strictEqual(PAGE_BYTES, memory.PAGE_BYTES);
  });

  it("is checked to be what was filled, wherever the page lies", () => {
    fc.assert(
      fc.property(seeds, pages, versions, fc.integer({ min: 0, max: 3 }), (seed, page, version, slot) => {
        const recipe = recipeOf(seed, MIX);
        const words = new Int32Array(4 * PAGE_WORDS);
        fillPage(recipe, words, slot * PAGE_WORDS, page, version);
        assert.isTrue(pageMatches(recipe, words, slot * PAGE_WORDS, page, version));
        const neighbours = words.filter((_, index) => Math.floor(index / PAGE_WORDS) !== slot);
        assert.isTrue(neighbours.every((word) => word === 0));
      }),
    );
  });

  it("fails the check after any single bit is flipped", () => {
    const bits = fc.integer({ min: 0, max: PAGE_BYTES * 8 - 1 });
    fc.assert(
      fc.property(seeds, pages, versions, bits, (seed, page, version, bit) => {
        const words = pageOf(seed, page, version);
        words[bit >> 5]! ^= 1 << (bit & 31);
        assert.isFalse(pageMatches(recipeOf(seed, MIX), words, 0, page, version));
      }),
    );
  });

  it("differs in every word between two versions of the same kind that is not zero, and in four where it is counted", () => {
    fc.assert(
      fc.property(seeds, pages, versions, versions, (seed, page, one, other) => {
        const recipe = recipeOf(seed, MIX);
        const kind = kindOf(recipe, page, one);
        fc.pre(one !== other && kind !== ZERO && kind === kindOf(recipe, page, other));
        const words = pageOf(seed, page, other);
        const equal = pageOf(seed, page, one).filter((word, index) => word === words[index]).length;
        assert.strictEqual(equal, kind === COUNTED ? PAGE_WORDS - 4 : 0);
      }),
    );
  });

  it("is of one kind, and each word can be had alone", () => {
    fc.assert(
      fc.property(seeds, pages, versions, (seed, page, version) => {
        const recipe = recipeOf(seed, MIX);
        const words = pageOf(seed, page, version);
        assert.strictEqual(isZero(words, 0), kindOf(recipe, page, version) === ZERO);
        assert.isTrue(words.every((word, index) => word === wordOf(recipe, page, version, index)));
      }),
    );
  });

  it("follows the mix, over pages and over the versions of one page", () => {
    const recipe = recipeOf(3, MIX);
    const share = (draw: (n: number) => number, kind: number): number => {
      let count = 0;
      for (let n = 1; n <= 20_000; n++) if (draw(n) === kind) count++;
      return count / 200;
    };
    for (const draw of [(n: number) => kindOf(recipe, n, 1), (n: number) => kindOf(recipe, 77, n)]) {
      assert.closeTo(share(draw, ZERO), 30, 2);
      assert.closeTo(share(draw, COMPRESSIBLE), 30, 2);
      assert.closeTo(share(draw, RANDOM), 20, 2);
      assert.closeTo(share(draw, COUNTED), 20, 2);
    }
  });

  it("is zero at version 0, and obeys a mix of one kind alone", () => {
    assert.strictEqual(kindOf(recipeOf(1, { zero: 0, compressible: 0, random: 100 }), 5, 0), ZERO);
    for (let page = 0; page < 1000; page++) {
      assert.strictEqual(kindOf(recipeOf(1, { zero: 100, compressible: 0, random: 0 }), page, 9), ZERO);
      assert.strictEqual(kindOf(recipeOf(1, { zero: 0, compressible: 100, random: 0 }), page, 9), COMPRESSIBLE);
      assert.strictEqual(kindOf(recipeOf(1, { zero: 0, compressible: 0, random: 100 }), page, 9), RANDOM);
      assert.strictEqual(kindOf(recipeOf(1, { zero: 0, compressible: 0, random: 0, counted: 100 }), page, 9), COUNTED);
    }
  });
});
