import * as Bitmap from "@godwit/memory/bitmap";
import { PACKET_PAGES_MAX, PAGE_BYTES, SLICE_BYTES_MAX } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Ledger from "./ledger.ts";
import * as Verification from "./verification.ts";

const BLOCKS = [200, 64, 1, 333] as const;
const LANE = { channel: 0, epoch: 1 };

type Step =
  | { readonly do: "find"; readonly block: number; readonly first: number; readonly count: number }
  | { readonly do: "take"; readonly times: number }
  | { readonly do: "apply"; readonly pick: number }
  | { readonly do: "again"; readonly pick: number }
  | { readonly do: "wait"; readonly ms: number }
  | { readonly do: "next round" };
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.nat(BLOCKS.length - 1).chain((block) =>
    fc.record({
      do: fc.constant("find" as const),
      block: fc.constant(block),
      first: fc.nat(BLOCKS[block]! - 1),
      count: fc.integer({ min: 1, max: 120 }),
    }),
  ),
  fc.record({ do: fc.constant("take" as const), times: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ do: fc.constant("apply" as const), pick: fc.nat(20) }),
  fc.record({ do: fc.constant("again" as const), pick: fc.nat(20) }),
  fc.record({ do: fc.constant("wait" as const), ms: fc.nat(1000) }),
  fc.record({ do: fc.constant("next round" as const) }),
);
const steps = fc.array(step, { maxLength: 60 });

const pagesOf = (item: Ledger.Item): string[] => {
  const { work } = item;
  if (work.kind === "slice") return [];
  const pages: string[] = [];
  for (let r = 0; r < work.runs.length; r += 2)
    for (let n = 0; n < work.runs[r + 1]!; n++) pages.push(`${work.block}:${work.runs[r]! + n}`);
  return pages;
};
const todoOf = (ledger: Ledger.Ledger): string[] =>
  ledger.todo.flatMap((bitmap, block) =>
    Array.from({ length: bitmap.pageCount }, (_, page) => page)
      .filter((page) => Bitmap.test(bitmap, page))
      .map((page) => `${block}:${page}`),
  );
const outstanding = (ledger: Ledger.Ledger): Ledger.Item[] => [...ledger.outstanding.values()];
/** Hands out all there is; returns the items that were new. */
const drain = (ledger: Ledger.Ledger, now = 0): Ledger.Item[] => {
  const taken: Ledger.Item[] = [];
  for (let item = Ledger.take(ledger, LANE, now); item !== null; item = Ledger.take(ledger, LANE, now)) {
    if (item.attempts === 1) taken.push(item);
    if (taken.length > 2000) throw new Error("it never ends");
  }
  return taken;
};

/** A ledger and, beside it, what is owed: found, and not acknowledged since. */
class Book {
  readonly ledger: Ledger.Ledger;
  readonly owed = new Set<string>();
  now = 0;
  constructor(itemPagesMax?: number) {
    this.ledger = Ledger.make(BLOCKS, itemPagesMax);
    Ledger.beginRound(this.ledger);
  }
  run(each: Step): void {
    const { ledger } = this;
    const pick = (n: number): Ledger.Item | undefined => outstanding(ledger)[n % Math.max(1, ledger.outstanding.size)];
    switch (each.do) {
      case "find": {
        const count = Math.min(each.count, BLOCKS[each.block]! - each.first);
        Ledger.found(ledger, each.block, each.first, count);
        for (let n = 0; n < count; n++) this.owed.add(`${each.block}:${each.first + n}`);
        return;
      }
      case "take":
        for (let n = 0; n < each.times; n++) Ledger.take(ledger, LANE, this.now);
        return;
      case "apply": {
        const item = pick(each.pick);
        if (item === undefined) return;
        expect(Ledger.applied(ledger, item.item)).toBe(item);
        // A copy of the acknowledgement, or one of an item that never was, changes nothing.
        expect(Ledger.applied(ledger, item.item)).toBeNull();
        expect(Ledger.applied(ledger, 0xffff_ffff)).toBeNull();
        const still = new Set([...todoOf(ledger), ...outstanding(ledger).flatMap(pagesOf)]);
        for (const page of pagesOf(item)) if (!still.has(page)) this.owed.delete(page);
        return;
      }
      case "again": {
        const item = pick(each.pick);
        if (item === undefined) return;
        Ledger.sendAgain(ledger, item);
        Ledger.sendAgain(ledger, item);
        return;
      }
      case "wait":
        this.now += each.ms;
        for (const item of Ledger.overdue(ledger, this.now, 150, 3000)) Ledger.sendAgain(ledger, item);
        return;
      case "next round":
        Ledger.beginRound(ledger);
        return;
    }
  }
  check(): void {
    const { ledger, owed } = this;
    const todo = todoOf(ledger);
    const items = outstanding(ledger);
    // Nothing is lost, and nothing is made up.
    expect(new Set([...todo, ...items.flatMap(pagesOf)])).toEqual(owed);
    expect(ledger.todoPages).toBe(todo.length);
    expect(ledger.outstandingBytes).toBe(items.reduce((sum, item) => sum + item.bytes, 0));
    expect(Ledger.remainingBytes(ledger)).toBe(ledger.todoPages * PAGE_BYTES + ledger.outstandingBytes);
    expect(Ledger.isDone(ledger)).toBe(owed.size === 0);
    // What waits to be handed out again has no channel, and waits once.
    const waiting = ledger.again.filter((item) => ledger.outstanding.has(item.item));
    expect(new Set(waiting).size).toBe(waiting.length);
    expect(new Set(items.filter((item) => item.channel === null))).toEqual(new Set(waiting));
    expect(Ledger.hasWork(ledger)).toBe(todo.length > 0 || waiting.length > 0);
  }
}

describe("the list of work", () => {
  it("owes each page that was found until its item is applied: in `todo`, in an item, or in both when it was found again", () => {
    fc.assert(
      fc.property(steps, (all) => {
        const book = new Book();
        for (const each of all) {
          book.run(each);
          book.check();
        }
      }),
    );
  });

  it("has each page in one place only, as long as a round finds no page twice", () => {
    fc.assert(
      fc.property(steps, (all) => {
        const book = new Book();
        const found = new Set<string>();
        for (const each of all) {
          if (each.do === "next round") found.clear();
          if (each.do === "find") {
            const pages = Array.from({ length: each.count }, (_, n) => `${each.block}:${each.first + n}`);
            if (pages.some((page) => found.has(page) || book.owed.has(page))) continue;
            for (const page of pages) found.add(page);
          }
          book.run(each);
          const places = [...todoOf(book.ledger), ...outstanding(book.ledger).flatMap(pagesOf)];
          expect(new Set(places).size).toBe(places.length);
        }
      }),
    );
  });

  it("promises as many items as are then taken, wherever the cut stands, and whatever was found behind it", () => {
    fc.assert(
      fc.property(steps, fc.nat(2 * SLICE_BYTES_MAX + 5), fc.boolean(), (all, deviceBytes, last) => {
        const book = new Book();
        for (const each of all) book.run(each);
        if (last) Ledger.addDeviceState(book.ledger, deviceBytes);
        const promised = Ledger.promise(book.ledger);
        expect(Ledger.promise(book.ledger)).toBe(promised);
        const before = book.ledger.nextItem;
        const taken = drain(book.ledger);
        expect(promised).toBe(book.ledger.nextItem);
        expect(taken.map((item) => item.item)).toEqual(taken.map((_, n) => before + n));
        expect(Ledger.promise(book.ledger)).toBe(promised);
      }),
    );
  });

  it("cuts items that a packet holds: ascending runs of one block, as many pages as may be, bytes that add up", () => {
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: PACKET_PAGES_MAX }), (all, itemPagesMax) => {
        const book = new Book(itemPagesMax);
        for (const each of all) book.run(each);
        for (const { work, bytes } of drain(book.ledger)) {
          if (work.kind === "slice") continue;
          let next = 0;
          let pages = 0;
          for (let r = 0; r < work.runs.length; r += 2) {
            expect(work.runs[r]).toBeGreaterThanOrEqual(next);
            expect(work.runs[r + 1]).toBeGreaterThan(0);
            next = work.runs[r]! + work.runs[r + 1]!;
            pages += work.runs[r + 1]!;
          }
          expect(next).toBeLessThanOrEqual(BLOCKS[work.block]!);
          expect(pages).toBe(work.pages);
          expect(pages).toBeLessThanOrEqual(itemPagesMax);
          expect(bytes).toBe(pages * PAGE_BYTES);
        }
      }),
    );
  });

  it("loses nothing when a round begins: what is owed is owed again, under numbers from 0, to nobody yet", () => {
    fc.assert(
      fc.property(steps, (all) => {
        const book = new Book();
        for (const each of all) book.run(each);
        const { round } = book.ledger;
        Ledger.beginRound(book.ledger);
        book.check();
        expect(book.ledger).toMatchObject({ round: round + 1, nextItem: 0, outstandingBytes: 0 });
        expect(book.ledger.outstanding.size).toBe(0);
        const taken = drain(book.ledger);
        expect(new Set(taken.flatMap(pagesOf))).toEqual(book.owed);
        for (const item of taken) Ledger.applied(book.ledger, item.item);
        expect(Ledger.isDone(book.ledger)).toBe(true);
      }),
    );
  });

  it("hands out again first what was handed out before, and not what was applied meanwhile", () => {
    const ledger = Ledger.make([200]);
    Ledger.beginRound(ledger);
    Ledger.found(ledger, 0, 0, 200);
    const first = Ledger.take(ledger, LANE, 0)!;
    const second = Ledger.take(ledger, LANE, 0)!;
    Ledger.sendAgain(ledger, first);
    Ledger.sendAgain(ledger, second);
    Ledger.applied(ledger, first.item);
    const next = Ledger.take(ledger, { channel: 5, epoch: 9 }, 77)!;
    expect(next).toBe(second);
    expect(next).toMatchObject({ channel: 5, channelEpoch: 9, sentAt: 77, attempts: 2 });
    expect(ledger.resentItems).toBe(1);
    expect(Ledger.take(ledger, LANE, 0)!.item).toBe(2);
  });
});

describe("a postcopy", () => {
  it("leaves behind what was found and what was never compared, in whole host pages, and promises nothing of it", () => {
    const ledger = Ledger.make([200, 1024], PACKET_PAGES_MAX, Verification.make([200, 1024]));
    Ledger.beginRound(ledger);
    Ledger.found(ledger, 0, 5, 1);
    Ledger.found(ledger, 1, 700, 2);
    Ledger.foundAll(ledger);
    // Applied, and never compared.
    for (let item = Ledger.take(ledger, LANE, 0); item !== null && item.work.kind === "pages"; ) {
      Ledger.applied(ledger, item.item);
      item = Ledger.take(ledger, LANE, 0);
    }
    Ledger.beginRound(ledger);
    Ledger.found(ledger, 0, 100, 3);
    Ledger.foundAll(ledger);
    const [small, large] = Ledger.leaveBehind(ledger, [1, 512]);
    expect([5, 100, 101, 102].every((page) => Bitmap.test(small!, page))).toBe(true);
    expect(Bitmap.count(small!)).toBe(4);
    expect(Bitmap.hasRange(large!, 512, 512)).toBe(true);
    expect(Bitmap.count(large!)).toBe(512);
    Ledger.addDeviceState(ledger, SLICE_BYTES_MAX + 1);
    expect(Ledger.promise(ledger)).toBe(2);
    for (const number of [0, 1]) {
      expect(Ledger.take(ledger, LANE, 0)!.work.kind).toBe("slice");
      Ledger.applied(ledger, number);
    }
    expect(Ledger.isDone(ledger)).toBe(true);
  });
});

describe("the device state", () => {
  it("is cut into slices without gap or overlap, which fit a packet", () => {
    fc.assert(
      fc.property(fc.nat(5 * SLICE_BYTES_MAX), fc.integer({ min: 1, max: 64 }), (bytes, itemPagesMax) => {
        const ledger = Ledger.make([], itemPagesMax);
        Ledger.beginRound(ledger);
        Ledger.addDeviceState(ledger, bytes);
        let at = 0;
        for (const { work } of drain(ledger)) {
          if (work.kind !== "slice") throw new Error("pages");
          expect(work.offset).toBe(at);
          expect(work.bytes).toBeGreaterThan(0);
          expect(work.bytes).toBeLessThanOrEqual(itemPagesMax * PAGE_BYTES);
          at += work.bytes;
        }
        expect(at).toBe(bytes);
      }),
      { numRuns: 40 },
    );
  });

  it("belongs to the last round: no other begins after a slice was handed out", () => {
    const ledger = Ledger.make([]);
    Ledger.beginRound(ledger);
    Ledger.addDeviceState(ledger, 10);
    Ledger.take(ledger, LANE, 0);
    expect(() => Ledger.beginRound(ledger)).toThrow(/device state/);
  });
});

describe("an item that is late", () => {
  it("is so at once, then after twice, four times, eight times as long", () => {
    const ledger = Ledger.make([1]);
    Ledger.beginRound(ledger);
    Ledger.found(ledger, 0, 0, 1);
    let now = 1000;
    Ledger.take(ledger, LANE, now);
    for (const patience of [100, 200, 400, 800, 1600]) {
      expect(Ledger.overdue(ledger, now + patience - 1, 100, 1e6)).toEqual([]);
      const late = Ledger.overdue(ledger, now + patience, 100, 1e6);
      expect(late).toHaveLength(1);
      Ledger.sendAgain(ledger, late[0]!);
      // While it waits for a channel nobody is late with it.
      expect(Ledger.overdue(ledger, now + 1e9, 100, 1e6)).toEqual([]);
      now += 5000;
      Ledger.take(ledger, LANE, now);
    }
  });
});

describe("pages that are held back", () => {
  const owed = (): Ledger.Ledger => {
    const ledger = Ledger.make(BLOCKS);
    Ledger.beginRound(ledger);
    Ledger.found(ledger, 0, 10, 5);
    Ledger.found(ledger, 3, 0, 2);
    Ledger.beginRound(ledger);
    Ledger.holdBack(ledger);
    return ledger;
  };
  const sent = (ledger: Ledger.Ledger): string[] => drain(ledger).flatMap(pagesOf);

  it("go when they are found again, and the others when all of the round is found, each once", () => {
    const ledger = owed();
    expect(Ledger.remainingBytes(ledger)).toBe(7 * PAGE_BYTES);
    expect(sent(ledger)).toEqual([]);
    Ledger.found(ledger, 0, 12, 1);
    Ledger.found(ledger, 2, 0, 1);
    expect(sent(ledger)).toEqual(["0:12", "2:0"]);
    Ledger.foundAll(ledger);
    expect(sent(ledger).sort()).toEqual(["0:10", "0:11", "0:13", "0:14", "3:0", "3:1"]);
    expect(Ledger.hasWork(ledger)).toBe(false);
  });

  it("are promised with what was handed out before", () => {
    const ledger = owed();
    Ledger.found(ledger, 0, 12, 1);
    const before = drain(ledger);
    Ledger.foundAll(ledger);
    const promised = Ledger.promise(ledger);
    expect(before.length + drain(ledger).length).toBe(promised);
  });

  it("are not forgotten by a round that begins before the sync has ended", () => {
    const ledger = owed();
    Ledger.beginRound(ledger);
    expect(sent(ledger)).toHaveLength(7);
  });
});
