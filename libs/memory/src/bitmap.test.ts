import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Bitmap from "./bitmap.ts";

const PAGES_MAX = 200;

/** A range within a bitmap of `pages` pages, from two fractions. */
const range = (pages: number, a: number, b: number) => {
  const first = Math.min(a, b) % (pages + 1);
  return { first, count: Math.min(Math.abs(a - b), pages - first) };
};

type Step = {
  readonly verb: "setRange" | "clearRange" | "setAll" | "clearAll";
  readonly a: number;
  readonly b: number;
};
const pages = fc.integer({ min: 0, max: PAGES_MAX });
const step: fc.Arbitrary<Step> = fc.record({
  verb: fc.constantFrom("setRange", "setRange", "clearRange", "setAll", "clearAll"),
  a: fc.nat(PAGES_MAX),
  b: fc.nat(PAGES_MAX),
});
const steps = fc.array(step, { maxLength: 20 });

const run = (pageCount: number, list: ReadonlyArray<Step>): { bitmap: Bitmap.Bitmap; model: boolean[] } => {
  const bitmap = Bitmap.make(pageCount);
  const model = new Array<boolean>(pageCount).fill(false);
  for (const { verb, a, b } of list) {
    const { first, count } = range(pageCount, a, b);
    if (verb === "setRange") {
      Bitmap.setRange(bitmap, first, count);
      model.fill(true, first, first + count);
    } else if (verb === "clearRange") {
      Bitmap.clearRange(bitmap, first, count);
      model.fill(false, first, first + count);
    } else {
      (verb === "setAll" ? Bitmap.setAll : Bitmap.clearAll)(bitmap);
      model.fill(verb === "setAll");
    }
  }
  return { bitmap, model };
};

const toModel = (bitmap: Bitmap.Bitmap) =>
  Array.from({ length: bitmap.pageCount }, (_, page) => Bitmap.test(bitmap, page));

/** Runs of a model, found page by page. */
const modelRuns = (model: ReadonlyArray<boolean>, maxPages: number) => {
  const runs: Array<{ first: number; count: number }> = [];
  model.forEach((set, page) => {
    if (!set) return;
    const last = runs.at(-1);
    if (last !== undefined && last.first + last.count === page && last.count < maxPages) last.count++;
    else runs.push({ first: page, count: 1 });
  });
  return runs;
};

const allRuns = (bitmap: Bitmap.Bitmap, maxPages: number) => {
  const runs: Bitmap.PageRun[] = [];
  for (let from = 0; ; ) {
    const found = Bitmap.nextRun(bitmap, from, maxPages);
    if (found === null) return runs;
    runs.push(found);
    from = found.first + found.count;
  }
};

/** Of this thread's processor time: others may have the processors meanwhile. */
const cpuMs = (body: () => void): number => {
  const before = process.threadCpuUsage();
  body();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1000;
};

describe("a bitmap", () => {
  it("holds what an array of booleans would, after any steps", () => {
    fc.assert(
      fc.property(pages, steps, (pageCount, list) => {
        const { bitmap, model } = run(pageCount, list);
        expect(toModel(bitmap)).toEqual(model);
        expect(Bitmap.count(bitmap)).toBe(model.filter(Boolean).length);
        expect(Bitmap.isEmpty(bitmap)).toBe(!model.includes(true));
      }),
    );
  });

  it("says whether a whole range is set, or clear", () => {
    fc.assert(
      fc.property(pages, steps, fc.nat(PAGES_MAX), fc.nat(PAGES_MAX), (pageCount, list, a, b) => {
        const { bitmap, model } = run(pageCount, list);
        const { first, count } = range(pageCount, a, b);
        expect(Bitmap.hasRange(bitmap, first, count)).toBe(!model.slice(first, first + count).includes(false));
        expect(Bitmap.isClearRange(bitmap, first, count)).toBe(!model.slice(first, first + count).includes(true));
      }),
    );
  });

  it("walks its runs like a search page by page, at any cut", () => {
    fc.assert(
      fc.property(pages, steps, fc.integer({ min: 1, max: 70 }), (pageCount, list, maxPages) => {
        const { bitmap, model } = run(pageCount, list);
        expect(allRuns(bitmap, maxPages)).toEqual(modelRuns(model, maxPages));
      }),
    );
  });

  it("unites with another of the same length, and changes only the target", () => {
    fc.assert(
      fc.property(pages, steps, steps, (pageCount, ones, others) => {
        const one = run(pageCount, ones);
        const other = run(pageCount, others);
        const both = one.model.map((set, page) => set || other.model[page]!);
        expect(toModel(Bitmap.union(one.bitmap, other.bitmap))).toEqual(both);
        expect(toModel(one.bitmap)).toEqual(one.model);
        Bitmap.orInto(one.bitmap, other.bitmap);
        expect(toModel(one.bitmap)).toEqual(both);
        expect(toModel(other.bitmap)).toEqual(other.model);
      }),
    );
  });

  it("widens to whole groups of pages, as one that knows only groups would have it", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 }),
        fc.array(fc.nat(299)),
        fc.constantFrom(1, 3, 8, 512),
        (pages, set, group) => {
          const bitmap = Bitmap.make(pages);
          const chosen = set.filter((page) => page < pages);
          for (const page of chosen) Bitmap.setRange(bitmap, page, 1);
          Bitmap.widen(bitmap, group);
          const groups = new Set(chosen.map((page) => Math.floor(page / group)));
          for (let page = 0; page < pages; page++)
            expect(Bitmap.test(bitmap, page)).toBe(groups.has(Math.floor(page / group)));
        },
      ),
    );
  });

  it("keeps the bits beyond its last page clear", () => {
    const bitmap = Bitmap.make(33);
    Bitmap.setAll(bitmap);
    expect([...bitmap.words]).toEqual([0xffffffff, 1]);
  });

  it("refuses ranges that leave it, and bitmaps of another length", () => {
    const bitmap = Bitmap.make(10);
    expect(() => Bitmap.setRange(bitmap, 8, 3)).toThrow(RangeError);
    expect(() => Bitmap.clearRange(bitmap, -1, 1)).toThrow(RangeError);
    expect(() => Bitmap.orInto(bitmap, Bitmap.make(11))).toThrow(RangeError);
    expect(() => Bitmap.nextRun(bitmap, 0, 0)).toThrow(RangeError);
    expect(Bitmap.test(bitmap, 10)).toBe(false);
    expect(Bitmap.nextRun(bitmap, 10, 5)).toBeNull();
  });

  it("takes no longer for a short step through a long run than through a short one", () => {
    const pageCount = 2 ** 26;
    const bitmap = Bitmap.make(pageCount);
    Bitmap.setAll(bitmap);
    const tookMs = cpuMs(() => {
      for (let step = 0; step < 20_000; step++)
        if (Bitmap.nextRun(bitmap, step * 64, 64)?.count !== 64) throw new Error(`step ${step}`);
    });
    // Each step that looked to the run's end, 256 GiB behind, would take a millisecond: 20 s.
    expect(tookMs).toBeLessThan(2000);
  });

  it("finds a lone bit behind 256 GiB of clean pages in a few milliseconds", () => {
    const pageCount = 2 ** 26;
    const bitmap = Bitmap.make(pageCount);
    Bitmap.setRange(bitmap, pageCount - 1, 1);
    const tookMs = cpuMs(() => expect(Bitmap.nextRun(bitmap, 0, 64)).toEqual({ first: pageCount - 1, count: 1 }));
    // 2 million words.
    expect(tookMs).toBeLessThan(200);
  });
});
