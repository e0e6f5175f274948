import * as Bitmap from "@godwit/memory/bitmap";
import fc from "fast-check";
import { assert, describe, it } from "vitest";
import { type Fill, type FillEffect, type FillEvent, makeFill, stepFill } from "./fill.ts";

const PAGES = 900;
const sumOf = (page: number): number => page * 7 + 1;

/** Workers that copy, sleep, answer twice, refuse and die, in the order that a list of numbers says. */
class World {
  readonly present = Bitmap.make(PAGES);
  readonly filled = new Set<number>();
  readonly fill: Fill;
  now = 1_700_000_000_000;
  asked: Array<Extract<FillEffect, { _tag: "Dispatch" }>> = [];
  ending: FillEffect | null = null;

  constructor(stored: ReadonlyArray<number>, sums: boolean) {
    for (const page of stored) Bitmap.setRange(this.present, page, 1);
    const known = sums ? Uint32Array.from({ length: PAGES }, (_, page) => sumOf(page)) : null;
    this.fill = makeFill([{ name: "ram0", pages: PAGES, present: this.present, sums: known }], 2, this.now);
    this.feed({ _tag: "WorkerUp", worker: "0" });
    this.feed({ _tag: "WorkerUp", worker: "1" });
  }

  feed(event: FillEvent): void {
    for (const effect of stepFill(this.fill, event, this.now)) {
      if (effect._tag === "Dispatch") this.asked.push(effect);
      if (effect._tag === "Done" || effect._tag === "Failed") {
        assert.isNull(this.ending, "it ends once");
        this.ending = effect;
      }
    }
  }

  answer(index: number, keeps: boolean, damage = false): void {
    const at = index % Math.max(1, this.asked.length);
    const request = this.asked[at];
    if (request === undefined || request.item.work.kind !== "pages") return;
    if (!keeps) this.asked.splice(at, 1);
    const { runs } = request.item.work;
    const sums: number[] = [];
    for (let r = 0; r < runs.length; r += 2) {
      for (let page = runs[r]!; page < runs[r]! + runs[r + 1]!; page++) {
        this.filled.add(page);
        sums.push(sumOf(page) + (damage ? 1 : 0));
      }
    }
    this.feed({ _tag: "Filled", item: request.item.item, sums: Uint32Array.from(sums) });
  }
}

const stored = fc.uniqueArray(fc.nat({ max: PAGES - 1 }), { maxLength: 400 });
const chaos = fc.array(fc.tuple(fc.nat({ max: 5 }), fc.nat({ max: 500 })), { maxLength: 300 });

describe("filling memory, whatever workers do", () => {
  it("asks for every stored page until it is in place, and for no other", () => {
    fc.assert(
      fc.property(stored, chaos, fc.boolean(), (pages, steps, sums) => {
        const world = new World(pages, sums);
        for (const [what, number] of steps) {
          world.now += number;
          if (what === 0) world.feed({ _tag: "Tick" });
          if (what === 1) world.answer(number, number % 5 === 0);
          if (what === 2) world.asked.splice(number % Math.max(1, world.asked.length), 1);
          if (what === 3) world.feed({ _tag: "WorkerDown", worker: "0" });
          if (what === 4) world.feed({ _tag: "WorkerUp", worker: "0" });
          if (what === 5) world.feed({ _tag: "LinkRestored" });
        }
        for (let turn = 0; turn < 5000 && world.ending === null; turn++) {
          world.now += 700;
          world.answer(0, false);
          world.feed({ _tag: "Tick" });
        }
        assert.deepStrictEqual(world.ending, { _tag: "Done" });
        assert.deepStrictEqual(
          [...world.filled].sort((one, other) => one - other),
          [...pages].sort((one, other) => one - other),
        );
      }),
      { numRuns: 150 },
    );
  });

  it("ends with the page that is damaged", () => {
    const world = new World([5, 6, 7], true);
    world.feed({ _tag: "Tick" });
    world.answer(0, false, true);
    assert.deepInclude(world.ending, { _tag: "Failed" });
    const failure = world.ending?._tag === "Failed" ? world.ending.failure : null;
    assert.strictEqual(failure?.code, "bad-checkpoint");
    assert.include(failure?.reason, "page 5 of RAMBlock ram0");
  });

  it("gives up when an item is refused again and again, with the last reason", () => {
    const world = new World([1], false);
    world.feed({ _tag: "Tick" });
    for (let turn = 0; turn < 50 && world.ending === null; turn++) {
      const request = world.asked.shift();
      if (request !== undefined) world.feed({ _tag: "Refused", item: request.item.item, reason: "EIO" });
      world.now += 1000;
      world.feed({ _tag: "Tick" });
    }
    const failure = world.ending?._tag === "Failed" ? world.ending.failure : null;
    assert.strictEqual(failure?.code, "checkpoint-failed");
    assert.include(failure?.reason, "EIO");
  });

  it("gives up without workers", () => {
    const world = new World([1], false);
    for (const worker of ["0", "1"]) world.feed({ _tag: "WorkerDown", worker });
    world.now += 31_000;
    world.feed({ _tag: "Tick" });
    assert.strictEqual(world.ending?._tag === "Failed" ? world.ending.failure.code : null, "workers-lost");
  });
});
