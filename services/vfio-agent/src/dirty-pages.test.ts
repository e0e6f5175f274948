import { PAGE_BYTES } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type DirtyPagesAnswer, layoutOf, makeDirtyPages } from "./dirty-pages.ts";

/** Devices that log pages, each by (range, page); a report takes a while and clears. */
class Devices {
  readonly pages: ReadonlyArray<number>;
  logs: Array<Array<readonly [number, number]>>;
  asked = 0;

  constructor(pages: ReadonlyArray<number>, count: number) {
    this.pages = pages;
    this.logs = Array.from({ length: count }, () => []);
  }

  readonly report = Effect.gen({ self: this }, function* () {
    this.asked++;
    const taken = this.logs;
    this.logs = taken.map(() => []);
    yield* Effect.sleep(20);
    return taken.map((log) =>
      this.pages.map((count, range) => {
        // Whole words, as the kernel gives them.
        const bits = new Uint8Array(Math.ceil(count / 64) * 8);
        for (const [at, page] of log) if (at === range) bits[page >> 3]! |= 1 << (page & 7);
        return bits;
      }),
    );
  });
}
const layout = (pages: ReadonlyArray<number>) => layoutOf(pages.map((count) => count * PAGE_BYTES));
const pagesIn = ({ runs }: DirtyPagesAnswer): string[] => {
  const pages: string[] = [];
  for (let r = 0; r < runs.length; r += 3)
    for (let n = 0; n < runs[r + 2]!; n++) pages.push(`${runs[r]}:${runs[r + 1]! + n}`);
  return pages;
};

describe("pages that devices wrote", () => {
  it("are those of all devices together, by RAMBlock, once, and none beyond its end", () =>
    Effect.runPromise(
      Effect.gen(function* () {
        const devices = new Devices([10, 70], 2);
        const dirty = makeDirtyPages(layout([10, 70]), devices.report);
        devices.logs = [
          [
            [0, 3],
            [1, 69],
            [0, 12],
          ],
          [
            [0, 3],
            [0, 4],
          ],
        ];
        const answer = yield* dirty.ask(1, 0);
        expect(answer).toEqual({ _tag: "DirtyPages", runs: [0, 3, 2, 1, 69, 1], next: null });
        expect((yield* dirty.ask(2, 0)).runs).toEqual([]);
      }),
    ));

  it("are told again when the same sync asks again, though the devices have forgotten them", () =>
    Effect.runPromise(
      Effect.gen(function* () {
        const devices = new Devices([10], 1);
        const dirty = makeDirtyPages(layout([10]), devices.report);
        devices.logs = [[[0, 1]]];
        const first = yield* dirty.ask(1, 0);
        devices.logs = [[[0, 5]]];
        expect(yield* dirty.ask(1, 0)).toEqual(first);
        expect(devices.asked).toBe(1);
        expect((yield* dirty.ask(2, 0)).runs).toEqual([0, 5, 1]);
      }),
    ));

  it("are not lost to a question that is asked again while the devices are still being asked", () =>
    Effect.runPromise(
      Effect.gen(function* () {
        const devices = new Devices([10], 1);
        const dirty = makeDirtyPages(layout([10]), devices.report);
        devices.logs = [[[0, 1]]];
        const answers = yield* Effect.all([dirty.ask(1, 0), dirty.ask(1, 0)], { concurrency: 2 });
        for (const { runs } of answers) expect(runs).toEqual([0, 1, 1]);
      }),
    ));

  it("are not lost to a late copy of a question from the sync before", () =>
    Effect.runPromise(
      Effect.gen(function* () {
        const devices = new Devices([10], 1);
        const dirty = makeDirtyPages(layout([10]), devices.report);
        yield* dirty.ask(1, 0);
        devices.logs = [[[0, 7]]];
        const present = yield* dirty.ask(2, 0);
        yield* dirty.ask(1, 0);
        expect(yield* dirty.ask(2, 0)).toEqual(present);
      }),
    ));

  it("come whole in as many answers as it takes, none too long for a message", () =>
    Effect.runPromise(
      Effect.gen(function* () {
        const devices = new Devices([20_000, 3000], 1);
        const dirty = makeDirtyPages(layout([20_000, 3000]), devices.report);
        for (let page = 0; page < 20_000; page += 2) devices.logs[0]!.push([0, page]);
        for (let page = 0; page < 3000; page += 3) devices.logs[0]!.push([1, page]);
        const wanted = devices.logs[0]!.map(([block, page]) => `${block}:${page}`);
        const found: string[] = [];
        for (let from: number | null = 0; from !== null; ) {
          const answer: DirtyPagesAnswer = yield* dirty.ask(1, from);
          expect(answer.runs.length / 3).toBeLessThanOrEqual(4096);
          found.push(...pagesIn(answer));
          from = answer.next;
        }
        expect(found).toEqual(wanted);
      }),
    ));
});

describe("the layout of RAMBlocks as devices see them", () => {
  it("puts one behind the other, without a gap", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 1000 }), { maxLength: 20 }), (pages) => {
        let at = 0;
        for (const { iova, length } of layout(pages)) {
          expect(iova).toBe(at);
          at += length;
        }
        expect(at).toBe(pages.reduce((sum, count) => sum + count * PAGE_BYTES, 0));
      }),
    );
  });
});
