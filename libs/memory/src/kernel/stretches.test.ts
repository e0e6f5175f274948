import fc from "fast-check";
import { expect, it } from "vitest";
import { stretches } from "./stretches.ts";

const runsOf = (lengths: ReadonlyArray<readonly [gap: number, pages: number]>): Uint32Array => {
  let at = 0;
  return Uint32Array.from(
    lengths.flatMap(([gap, pages]) => {
      const first = at + gap;
      at = first + pages;
      return [first, pages];
    }),
  );
};

it("stretches are all pages of an item in order, each within its run, alike, and as long as can be", () => {
  const run = fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 9 }));
  fc.assert(
    fc.property(fc.array(run, { maxLength: 6 }), fc.uint8Array({ minLength: 7, maxLength: 7 }), (lengths, zeroMap) => {
      const runs = runsOf(lengths);
      const wanted: Array<{ page: number; at: number; isZero: boolean }> = [];
      for (let r = 0; r < runs.length; r += 2)
        for (let page = runs[r]!; page < runs[r]! + runs[r + 1]!; page++) {
          const at = wanted.length;
          wanted.push({ page, at, isZero: (zeroMap[at >>> 3]! & (1 << (at & 7))) !== 0 });
        }
      const found: typeof wanted = [];
      let before: { end: number; isZero: boolean } | null = null;
      stretches(runs, zeroMap, (first, count, at, isZero) => {
        for (let n = 0; n < count; n++) found.push({ page: first + n, at: at + n, isZero });
        // Runs here never touch, so a stretch that goes on where the last one ended is of the other kind.
        if (before?.end === first) expect(isZero).toBe(!before.isZero);
        before = { end: first + count, isZero };
      });
      expect(found).toEqual(wanted);
    }),
  );
});
