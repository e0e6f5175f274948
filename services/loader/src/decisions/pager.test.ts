import * as Bitmap from "@godwit/memory/bitmap";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addLatency, makeLatencies, summaryOf } from "./latencies.ts";
import {
  alreadyThere,
  CHUNK_PAGES_MAX,
  handBack,
  makePager,
  nextWork,
  type PagedBlock,
  type PagerWork,
  touch,
} from "./pager.ts";

const blockOf = (pages: number, present: ReadonlyArray<number>): PagedBlock => {
  const bitmap = Bitmap.make(pages);
  for (const page of present) if (page < pages) Bitmap.setRange(bitmap, page, 1);
  return { pages, present: bitmap };
};
const full = (pages: number): PagedBlock => blockOf(pages, [...Array(pages).keys()]);

const anyBlock = fc
  .integer({ min: 1, max: 700 })
  .chain((pages) => fc.array(fc.nat(pages - 1), { maxLength: 400 }).map((present) => blockOf(pages, present)));
const anyBlocks = fc.array(anyBlock, { minLength: 1, maxLength: 3 });
const anySteps = fc.array(
  fc.oneof(
    fc.record({ block: fc.nat(2), page: fc.nat(699) }),
    fc.constant("next" as const),
    fc.constant("answer" as const),
  ),
  { maxLength: 200 },
);

const pagesOf = (work: PagerWork): ReadonlyArray<string> =>
  work._tag === "Copy"
    ? Array.from({ length: work.pages }, (_, n) => `${work.block}:${work.first + n}`)
    : [`${work.block}:${work.page}`];

describe("a pager", () => {
  it("hands each page with content out once, or again after it came to nothing, and none without; whoever waits is answered first, and in order", () => {
    fc.assert(
      fc.property(anyBlocks, anySteps, fc.array(fc.boolean(), { maxLength: 50 }), (blocks, steps, failing) => {
        const mishaps = failing.values();
        const pager = makePager(blocks);
        const handedOut = new Set<string>();
        const waiting: string[] = [];
        const isPresent = (key: string): boolean => {
          const [block, page] = key.split(":").map(Number) as [number, number];
          return Bitmap.test(blocks[block]!.present, page);
        };
        const take = (rest: "now" | "later"): PagerWork | null => {
          const work = nextWork(pager, rest);
          const asked = waiting.shift();
          if (asked === undefined) {
            if (work !== null) expect(work).toMatchObject({ _tag: "Copy", since: null });
            if (rest === "later") expect(work).toBeNull();
          } else {
            expect(work).not.toBeNull();
            expect(pagesOf(work!)).toEqual([asked]);
            expect(work!._tag).toBe(isPresent(asked) && !handedOut.has(asked) ? "Copy" : "Zero");
          }
          if (work !== null && mishaps.next().value === true) {
            handBack(pager, work);
            if (asked !== undefined) waiting.unshift(asked);
            return work;
          }
          if (work?._tag !== "Copy") return work;
          expect(work.pages).toBeLessThanOrEqual(CHUNK_PAGES_MAX);
          for (const key of pagesOf(work)) {
            expect(handedOut.has(key), key).toBe(false);
            expect(isPresent(key), key).toBe(true);
            handedOut.add(key);
          }
          return work;
        };
        let now = 0;
        for (const step of steps) {
          if (step === "next" || step === "answer") take(step === "next" ? "now" : "later");
          else if (step.block < blocks.length && step.page < blocks[step.block]!.pages) {
            touch(pager, step.block, step.page, ++now);
            waiting.push(`${step.block}:${step.page}`);
          }
          const all = blocks.reduce((sum, { present }) => sum + Bitmap.count(present), 0);
          expect(pager.leftPages).toBe(all - handedOut.size);
        }
        while (take("now") !== null);
        expect(pager.leftPages).toBe(0);
        expect(handedOut.size).toBe(blocks.reduce((sum, { present }) => sum + Bitmap.count(present), 0));
      }),
    );
  });

  it("goes on around the place that was touched last, then from front to back", () => {
    const pager = makePager([full(2000)]);
    touch(pager, 0, 1000, 1);
    expect(nextWork(pager, "now")).toEqual({ _tag: "Copy", block: 0, first: 1000, pages: 1, since: 1 });
    const firsts = Array.from({ length: 6 }, () => nextWork(pager, "now") as Extract<PagerWork, { _tag: "Copy" }>);
    expect(firsts.map(({ first }) => first)).toEqual([1001, 1065, 1129, 1193, 968, 0]);
  });

  it("does not hand out what an earlier life has placed, but answers who waits for it", () => {
    const pager = makePager([full(100), full(10)]);
    alreadyThere(pager, 0, 0, 90);
    alreadyThere(pager, 0, 50, 45);
    expect(pager.leftPages).toBe(15);
    touch(pager, 0, 7, 3);
    expect(nextWork(pager, "now")).toEqual({ _tag: "Zero", block: 0, page: 7, since: 3 });
    expect(nextWork(pager, "now")).toMatchObject({ block: 0, first: 95, pages: 5 });
    expect(nextWork(pager, "now")).toMatchObject({ block: 1, first: 0, pages: 10 });
    expect(nextWork(pager, "now")).toBeNull();
  });

  it("refuses a page that no block has", () => {
    const pager = makePager([full(4)]);
    for (const [block, page] of [
      [0, 4],
      [0, -1],
      [1, 0],
    ] as const)
      expect(() => touch(pager, block, page, 0)).toThrow(RangeError);
  });
});

describe("latencies", () => {
  it("are told with percentiles that are at most a tenth too high or too low, and the exact greatest", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0.001, max: 100_000, noNaN: true }), { minLength: 1 }), (all) => {
        const latencies = makeLatencies();
        for (const ms of all) addLatency(latencies, ms);
        const sorted = [...all].sort((a, b) => a - b);
        const exact = (part: number): number => sorted[Math.ceil(sorted.length * part) - 1]!;
        const { count, p50, p99, max } = summaryOf(latencies);
        expect([count, max]).toEqual([all.length, sorted.at(-1)]);
        for (const [told, part] of [
          [p50, 0.5],
          [p99, 0.99],
        ] as const) {
          expect(told).toBeGreaterThanOrEqual(exact(part) / 1.1);
          expect(told).toBeLessThanOrEqual(exact(part) * 1.1);
        }
      }),
    );
  });
  it("of nothing are 0", () => {
    expect(summaryOf(makeLatencies())).toEqual({ count: 0, p50: 0, p90: 0, p99: 0, max: 0 });
  });
});
