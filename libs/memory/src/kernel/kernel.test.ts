import { PAGEMAP_HIGH } from "@godwit/host";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Bitmap from "../bitmap.ts";
import { PAGE_BYTES } from "../ram-block.ts";
import { digestRange } from "./digest.ts";
import { findDifferences } from "./page-difference.ts";
import { takeEntries } from "./soft-dirty-entries.ts";
import { isZeroPage } from "./zero-page.ts";

describe("a zero page", () => {
  it("is told from one with a single bit set anywhere", () => {
    const bytes = Buffer.alloc(3 * PAGE_BYTES);
    expect(isZeroPage(bytes, PAGE_BYTES)).toBe(true);
    for (const at of [0, 1, 2047, PAGE_BYTES - 1]) {
      bytes[PAGE_BYTES + at] = 1;
      expect(isZeroPage(bytes, PAGE_BYTES)).toBe(false);
      expect(isZeroPage(bytes, 0)).toBe(true);
      expect(isZeroPage(bytes, 2 * PAGE_BYTES)).toBe(true);
      bytes[PAGE_BYTES + at] = 0;
    }
  });
});

describe("a digest", () => {
  it("does not depend on the pieces that a block was read in", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 500 }), fc.nat(500), (bytes, cut) => {
        const at = cut % bytes.length;
        const pieces = digestRange(bytes, at, bytes.length - at, digestRange(bytes, 0, at));
        expect(pieces).toBe(digestRange(bytes, 0, bytes.length));
      }),
    );
  });
});

describe("differences from a shadow", () => {
  const PAGES = 40;
  const page = fc.constantFrom(0, 1, 2);

  it("are what a comparison page by page with zeros for absent pages finds", () => {
    fc.assert(
      fc.property(
        fc.array(page, { minLength: PAGES, maxLength: PAGES }),
        fc.array(page, { minLength: PAGES, maxLength: PAGES }),
        fc.nat(PAGES - 1),
        fc.boolean(),
        (guest, shadow, first, same) => {
          const guestPages = same ? shadow : guest;
          const shadowBytes = Buffer.alloc(PAGES * PAGE_BYTES);
          const present = Bitmap.make(PAGES);
          shadow.forEach((value, at) => {
            shadowBytes.fill(value, at * PAGE_BYTES, (at + 1) * PAGE_BYTES);
            if (value !== 0) Bitmap.setRange(present, at, 1);
          });
          const pages = PAGES - first;
          const fresh = Buffer.concat(guestPages.slice(first).map((value) => Buffer.alloc(PAGE_BYTES, value)));
          const differing = new Uint32Array(PAGES);
          const count = findDifferences(fresh, first, pages, shadowBytes, present, differing);
          const expected = guestPages.flatMap((value, at) => (at >= first && value !== shadow[at] ? [at - first] : []));
          expect([...differing.subarray(0, count)]).toEqual(expected);
        },
      ),
    );
  });
});

describe("soft-dirty entries", () => {
  const entries = (...high: number[]) => Uint32Array.from(high.flatMap((word) => [0, word >>> 0]));
  const pages = (bitmap: Bitmap.Bitmap) =>
    Array.from({ length: bitmap.pageCount }, (_, page) => Bitmap.test(bitmap, page));
  const { PRESENT, SWAPPED, SOFT_DIRTY } = PAGEMAP_HIGH;

  it("name the pages that carry the bit, and those whose entry has vanished since the last look", () => {
    const dirty = Bitmap.make(6);
    const mapped = Bitmap.make(6);
    takeEntries(entries(PRESENT, PRESENT | SOFT_DIRTY, 0, SWAPPED | SOFT_DIRTY, PRESENT), 1, 5, dirty, mapped);
    expect(pages(dirty)).toEqual([false, false, true, false, true, false]);
    expect(pages(mapped)).toEqual([false, true, true, false, true, true]);
    Bitmap.clearAll(dirty);
    takeEntries(entries(0, PRESENT, 0, PRESENT, 0), 1, 5, dirty, mapped);
    expect(pages(dirty)).toEqual([false, true, false, false, false, true]);
    Bitmap.clearAll(dirty);
    takeEntries(entries(0, PRESENT, 0, PRESENT, 0), 1, 5, dirty, mapped);
    expect(pages(dirty)).toEqual([false, false, false, false, false, false]);
  });
});
