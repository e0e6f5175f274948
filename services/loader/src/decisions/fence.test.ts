import type { Address } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Fence from "./fence.ts";

const MIGRATION = "0123456789abcdef";
const EPOCH = 4;
const PAGES = 5000;
const address = (change: Partial<Address> = {}): Address => ({
  migration: MIGRATION,
  epoch: EPOCH,
  round: 1,
  item: 0,
  channel: 0,
  channelEpoch: 1,
  ...change,
});
/** Bits set, all in all. */
const appliedItems = (fence: Fence.Fence): number => {
  let items = 0;
  for (let item = 0; item < fence.itemsMax; item++)
    if (Fence.isApplied(fence, { round: Fence.roundOf(fence), item })) items++;
  return items;
};
const arrive = (fence: Fence.Fence, packet: Address): Fence.Verdict => {
  const verdict = Fence.admit(fence, packet);
  if (verdict === "apply") Fence.applied(fence, packet);
  return verdict;
};

const packets = fc.array(
  fc
    .record({
      migration: fc.constantFrom(MIGRATION, MIGRATION, MIGRATION, "f".repeat(16)),
      epoch: fc.constantFrom(EPOCH, EPOCH, EPOCH, EPOCH - 1, EPOCH + 1, 0xffff_ffff),
      round: fc.integer({ min: 1, max: 6 }),
      item: fc.oneof(fc.nat(40), fc.nat(PAGES - 1), fc.constantFrom(0xffff_ffff, 100_000)),
    })
    .map(address),
  { maxLength: 200 },
);

describe("the fence", () => {
  it("lets in its own migration, epoch and newest round only, and counts each item of that round once", () => {
    fc.assert(
      fc.property(packets, (all) => {
        const fence = Fence.make(MIGRATION, EPOCH, PAGES);
        let newest = 0;
        let items = new Set<number>();
        for (const packet of all) {
          const belongs = packet.migration === MIGRATION && packet.epoch === EPOCH && packet.item < fence.itemsMax;
          const verdict = arrive(fence, packet);
          expect(verdict === "apply").toBe(belongs && packet.round >= newest);
          if (verdict !== "apply") continue;
          if (packet.round > newest) items = new Set();
          newest = packet.round;
          items.add(packet.item);
          expect(Fence.roundOf(fence)).toBe(newest);
          for (const item of items) expect(Fence.isApplied(fence, { round: newest, item })).toBe(true);
          expect(appliedItems(fence)).toBe(items.size);
        }
      }),
    );
  });

  it("changes nothing by asking", () => {
    const fence = Fence.make(MIGRATION, EPOCH, PAGES);
    arrive(fence, address({ round: 3, item: 7 }));
    const before = structuredClone(fence);
    for (const change of [{}, { round: 9 }, { round: 2 }, { item: 0xffff_ffff }, { epoch: 1 }])
      Fence.admit(fence, address(change));
    expect(fence).toEqual(before);
  });

  it("says why it refuses, migration and epoch first", () => {
    const fence = Fence.make(MIGRATION, EPOCH, PAGES);
    arrive(fence, address({ round: 3 }));
    expect(Fence.admit(fence, address({ migration: "f".repeat(16), epoch: 1, round: 1 }))).toBe("other migration");
    expect(Fence.admit(fence, address({ epoch: EPOCH + 1, round: 1 }))).toBe("other epoch");
    expect(Fence.admit(fence, address({ round: 2, item: 0xffff_ffff }))).toBe("older round");
    expect(Fence.admit(fence, address({ round: 3, item: fence.itemsMax }))).toBe("item out of range");
  });

  it("has room for an item, a check and a repair for each page and an item for each page's worth of device state", () => {
    const fence = Fence.make(MIGRATION, EPOCH, PAGES);
    expect(fence.itemsMax).toBe(3 * PAGES + 65_536);
    arrive(fence, address({ item: fence.itemsMax - 1 }));
    expect(appliedItems(fence)).toBe(1);
    expect(fence.words.length * 32).toBeLessThanOrEqual(fence.itemsMax + 96);
  });

  it("is the same again from its words, which is all that a restarted loader has of it", () => {
    fc.assert(
      fc.property(packets, packets, (before, after) => {
        const words = new Uint32Array(Fence.wordsOf(PAGES));
        const first = Fence.make(MIGRATION, EPOCH, PAGES, words);
        const whole = Fence.make(MIGRATION, EPOCH, PAGES);
        for (const packet of before) expect(arrive(first, packet)).toBe(arrive(whole, packet));
        const second = Fence.make(MIGRATION, EPOCH, PAGES, words.slice());
        for (const packet of after) expect(arrive(second, packet)).toBe(arrive(whole, packet));
        expect(second.words).toEqual(whole.words);
      }),
    );
  });

  it("that has no words lets nothing in", () => {
    const fence = Fence.make(MIGRATION, EPOCH, 0, Fence.CLOSED);
    expect(Fence.admit(fence, address())).toBe("item out of range");
    expect(Fence.holds(fence, { round: 1, items: 1 })).toBe(false);
  });

  it("holds what the manifest promises once every item of that very round is applied, whatever else is", () => {
    fc.assert(
      fc.property(packets, fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 4 }), (all, round, items) => {
        const fence = Fence.make(MIGRATION, EPOCH, PAGES);
        for (const packet of all) {
          arrive(fence, packet);
          const wanted = Array.from({ length: items }, (_, item) => Fence.isApplied(fence, { round, item }));
          expect(Fence.holds(fence, { round, items })).toBe(wanted.every((is) => is));
        }
      }),
    );
  });

  it("holds a last round without a single item at once, unless a newer one was seen", () => {
    const fence = Fence.make(MIGRATION, EPOCH, PAGES);
    expect(Fence.holds(fence, { round: 4, items: 0 })).toBe(true);
    arrive(fence, address({ round: 3 }));
    expect(Fence.holds(fence, { round: 4, items: 0 })).toBe(true);
    arrive(fence, address({ round: 5 }));
    expect(Fence.holds(fence, { round: 4, items: 0 })).toBe(false);
  });
});
