import * as Bitmap from "@godwit/memory/bitmap";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Ledger from "./ledger.ts";
import * as Verification from "./verification.ts";

const BLOCKS = [150, 40] as const;
const LANE = { channel: 0, epoch: 1 };
const ITEM_PAGES = 16;

/** Guest memory at both ends, and a way between them on which pages change. Everything a ledger hands out is carried out at once. */
class Pair {
  readonly source = BLOCKS.map((pages) => new Uint32Array(pages).fill(1));
  readonly destination = BLOCKS.map((pages) => new Uint32Array(pages));
  readonly dirty = BLOCKS.map((pages) => Bitmap.make(pages));
  readonly ledger = Ledger.make(BLOCKS, ITEM_PAGES, Verification.make(BLOCKS));
  writes = 1;
  damaged = 0;
  /** Decides for each page sent whether it changes on its way. */
  flips: () => boolean = () => false;

  write(block: number, page: number): void {
    this.source[block]![page] = ++this.writes;
    Bitmap.setRange(this.dirty[block]!, page, 1);
  }
  sync(everything = false): void {
    Ledger.beginRound(this.ledger);
    this.dirty.forEach((bitmap, block) => {
      for (let page = 0; page < bitmap.pageCount; page++)
        if (everything || Bitmap.test(bitmap, page)) Ledger.found(this.ledger, block, page, 1);
      Bitmap.clearAll(bitmap);
    });
    Ledger.foundAll(this.ledger);
  }
  /** Hands out one item and carries it out; false when there was none. */
  move(): boolean {
    const item = Ledger.take(this.ledger, LANE, 0);
    if (item === null) return false;
    const { work } = item;
    if (work.kind === "slice") throw new Error("no device state here");
    const { block, runs } = work;
    const differing = new Uint8Array((work.pages + 7) >>> 3);
    let equal = true;
    let index = 0;
    for (let r = 0; r < runs.length; r += 2) {
      for (let page = runs[r]!; page < runs[r]! + runs[r + 1]!; page++, index++) {
        const value = this.source[block]![page]!;
        if (work.kind === "pages") {
          const flip = this.flips();
          if (flip) this.damaged++;
          this.destination[block]![page] = flip ? value + 2 ** 31 : value;
        } else if (this.destination[block]![page] !== value) {
          equal = false;
          differing[index >>> 3]! |= 1 << (index & 7);
        }
      }
    }
    if (equal) Ledger.applied(this.ledger, item.item);
    else Ledger.differs(this.ledger, item.item, differing);
    return true;
  }
  drain(): void {
    for (let moves = 0; this.move(); moves++) if (moves > 10_000) throw new Error("it never ends");
  }
  counted(): { checked: number; damaged: number } {
    const { blocks } = this.ledger.verification!;
    return {
      checked: blocks.reduce((sum, block) => sum + block.pagesChecked, 0),
      damaged: blocks.reduce((sum, block) => sum + block.pagesDamaged, 0),
    };
  }
}

const place = fc.nat(1).chain((block) => fc.tuple(fc.constant(block), fc.nat(BLOCKS[block]! - 1)));
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant("write" as const), at: place }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("move" as const), times: fc.integer({ min: 1, max: 30 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("sync" as const) }) },
);
const steps = fc.array(step, { maxLength: 80 });
/** One page in `rate` changes on its way. */
const flipsOf = (rate: number, seed: number): (() => boolean) => {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % rate === 0;
  };
};

describe("verification", () => {
  it("leaves the destination equal to the source at the end of the last round, whatever was written and whatever changed on its way", () => {
    fc.assert(
      fc.property(steps, fc.integer({ min: 2, max: 300 }), fc.nat(), (all, rate, seed) => {
        const pair = new Pair();
        pair.flips = flipsOf(rate, seed);
        pair.sync(true);
        for (const each of all) {
          if (each.do === "write") pair.write(...each.at);
          else if (each.do === "sync") pair.sync();
          else for (let n = 0; n < each.times; n++) pair.move();
        }
        pair.sync();
        const promised = Ledger.promise(pair.ledger);
        pair.drain();
        expect(Ledger.isDone(pair.ledger)).toBe(true);
        expect(pair.destination).toEqual(pair.source);
        expect(pair.ledger.verification!.pages).toBe(0);
        // Repairs stand behind what was promised, and what was promised was all handed out.
        expect(pair.ledger.nextItem).toBe(promised);
      }),
    );
  });

  it("calls nothing damaged that the guest wrote meanwhile", () => {
    fc.assert(
      fc.property(steps, (all) => {
        const pair = new Pair();
        pair.sync(true);
        for (const each of all) {
          if (each.do === "write") pair.write(...each.at);
          else if (each.do === "sync") pair.sync();
          else for (let n = 0; n < each.times; n++) pair.move();
        }
        pair.sync();
        Ledger.promise(pair.ledger);
        pair.drain();
        expect(pair.counted().damaged).toBe(0);
      }),
    );
  });

  it("compares only once every page of the round is applied, so that what is on its way is not taken for damage", () => {
    const pair = new Pair();
    pair.sync(true);
    const { ledger } = pair;
    const held = Ledger.take(ledger, LANE, 0)!;
    for (let item = Ledger.take(ledger, LANE, 0); item !== null; item = Ledger.take(ledger, LANE, 0)) {
      expect(item.work.kind).toBe("pages");
      Ledger.applied(ledger, item.item);
    }
    expect(Ledger.hasWork(ledger)).toBe(false);
    Ledger.applied(ledger, held.item);
    expect(Ledger.take(ledger, LANE, 0)?.work.kind).toBe("check");
  });

  it("pays at the stop for what was written since, not for all of memory", () => {
    const pair = new Pair();
    pair.sync(true);
    pair.drain();
    expect(pair.counted().checked).toBe(BLOCKS[0] + BLOCKS[1]);
    for (const page of [3, 4, 90]) pair.write(0, page);
    pair.sync();
    // One item with three pages, and one check of them.
    expect(Ledger.promise(pair.ledger)).toBe(2);
  });

  it("finds a page that changed while the guest ran, by the next sync, and names its block", () => {
    const pair = new Pair();
    pair.sync(true);
    while (!Ledger.isApplied(pair.ledger)) pair.move();
    pair.destination[1]![7] = 12_345;
    pair.drain();
    expect(pair.counted().damaged).toBe(0);
    pair.sync();
    expect(pair.ledger.verification!.blocks.map((block) => block.pagesDamaged)).toEqual([0, 1]);
    pair.drain();
    expect(pair.destination).toEqual(pair.source);
  });

  it("checks a repaired page again, and repairs it again while it differs", () => {
    const pair = new Pair();
    pair.sync(true);
    pair.drain();
    pair.write(0, 5);
    pair.sync();
    Ledger.promise(pair.ledger);
    let sent = 0;
    pair.flips = () => ++sent <= 3;
    pair.drain();
    expect(sent).toBe(4);
    expect(pair.counted().damaged).toBe(3);
    expect(pair.destination).toEqual(pair.source);
  });

  it("counts a doubled answer once", () => {
    const pair = new Pair();
    pair.sync(true);
    pair.drain();
    pair.write(0, 5);
    pair.sync();
    Ledger.promise(pair.ledger);
    const { ledger } = pair;
    Ledger.applied(ledger, Ledger.take(ledger, LANE, 0)!.item);
    const check = Ledger.take(ledger, LANE, 0)!;
    expect(Ledger.differs(ledger, check.item, Uint8Array.of(1))).toBe(check);
    expect(Ledger.differs(ledger, check.item, Uint8Array.of(1))).toBeNull();
    expect(ledger.repairs).toHaveLength(1);
  });
});
