import { Ledger } from "@godwit/multifd";
import { NO_SLOT, PAGE_BYTES, PARAMETER_DEFAULTS } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import * as Xbzrle from "./xbzrle.ts";

const LANE = { channel: 0, epoch: 1 };
const HELD = [1, 1, 1, 1];
const WHOLE = [0, 0, 0, 0];

/** A guest of two blocks of 8 pages each, items of four pages, and a cache of so many slots. */
const make = (slots: number) => {
  const blockPages = [8, 8];
  const ledger = Ledger.make(blockPages, 4);
  const xbzrle = Xbzrle.make({
    blockPages,
    parameters: { ...PARAMETER_DEFAULTS, "xbzrle-cache-size": slots * PAGE_BYTES },
  });
  return { ledger, xbzrle };
};
type World = ReturnType<typeof make>;

/** Begins a round in which so many pages of a block are dirty, and hands out its first item. */
const round = ({ ledger, xbzrle }: World, block: number, first: number, pages = 4) => {
  Ledger.beginRound(ledger);
  Ledger.found(ledger, block, first, pages);
  return handOut({ ledger, xbzrle });
};
const handOut = ({ ledger, xbzrle }: World) => {
  const item = Ledger.take(ledger, LANE, 0)!;
  const plan = Xbzrle.plan(xbzrle, ledger, item);
  return { item, plan, held: plan === null ? null : [0, 1, 2, 3].map((page) => (plan.held[0]! >>> page) & 1) };
};
const acknowledge = ({ ledger, xbzrle }: World, item: Ledger.Item): void => {
  Ledger.applied(ledger, item.item);
  Xbzrle.applied(xbzrle, ledger, item);
};

describe("a page that is sent", () => {
  it("is kept from the first round on where there is a slot for every page", () => {
    const world = make(16);
    const first = round(world, 0, 0);
    expect(first.held).toEqual(WHOLE);
    acknowledge(world, first.item);
    expect(round(world, 0, 0).held).toEqual(HELD);
  });

  it("is kept from the second round on, and a delta once its last version was acknowledged", () => {
    const world = make(8);
    const first = round(world, 0, 0);
    expect(first.plan).toBeNull();
    acknowledge(world, first.item);
    const second = round(world, 0, 0);
    expect(second.held).toEqual(WHOLE);
    expect([...second.plan!.slots]).toEqual([0, 1, 2, 3]);
    acknowledge(world, second.item);
    const third = round(world, 0, 2);
    expect(third.held).toEqual([1, 1, 0, 0]);
    acknowledge(world, third.item);
    expect(round(world, 0, 2).held).toEqual(HELD);
    expect(Xbzrle.infoOf(world.xbzrle)).toMatchObject({ "cache-miss": 6, "cache-miss-rate": 0.5 });
  });

  it("goes whole when its last version was not acknowledged", () => {
    const world = make(8);
    round(world, 0, 0);
    acknowledge(world, round(world, 0, 0).item);
    expect(round(world, 0, 0).held).toEqual(HELD);
    expect(round(world, 0, 0).held).toEqual(WHOLE);
  });

  it("goes whole when it is sent again, and the next time as well: nobody knows which copy was applied", () => {
    const world = make(8);
    round(world, 0, 0);
    acknowledge(world, round(world, 0, 0).item);
    const late = round(world, 0, 0);
    expect(late.held).toEqual(HELD);
    Ledger.sendAgain(world.ledger, late.item);
    const again = handOut(world);
    expect(again.item).toBe(late.item);
    expect(again.plan).toBeNull();
    acknowledge(world, again.item);
    const next = round(world, 0, 0);
    expect(next.held).toEqual(WHOLE);
    acknowledge(world, next.item);
    expect(round(world, 0, 0).held).toEqual(HELD);
  });

  it("is a base when its only copy was acknowledged before it was sent again", () => {
    const world = make(8);
    round(world, 0, 0);
    const late = round(world, 0, 0);
    Ledger.sendAgain(world.ledger, late.item);
    acknowledge(world, late.item);
    expect(round(world, 0, 0).held).toEqual(HELD);
  });

  it("is no base of another block's page in the same slot, which waits until it was not sent for two rounds", () => {
    const world = make(8);
    round(world, 0, 0);
    acknowledge(world, round(world, 0, 0).item);
    const other = round(world, 1, 0);
    expect([...other.plan!.slots]).toEqual([NO_SLOT, NO_SLOT, NO_SLOT, NO_SLOT]);
    expect(other.held).toEqual(WHOLE);
    acknowledge(world, other.item);
    const later = round(world, 1, 0);
    expect([...later.plan!.slots]).toEqual([0, 1, 2, 3]);
    expect(later.held).toEqual(WHOLE);
    acknowledge(world, later.item);
    expect(round(world, 1, 0).held).toEqual(HELD);
    expect([...round(world, 0, 0).plan!.slots]).toEqual([NO_SLOT, NO_SLOT, NO_SLOT, NO_SLOT]);
  });

  it("has no more slots than the guest has pages, and no more than xbzrle-cache-size", () => {
    expect(make(8).xbzrle.slots).toBe(8);
    expect(make(1024).xbzrle.slots).toBe(16);
    expect(Xbzrle.slotsOf({ parameters: PARAMETER_DEFAULTS, blockPages: [2 ** 20, 3] })).toBe(16_384);
    expect(Xbzrle.slotsOf({ parameters: PARAMETER_DEFAULTS, blockPages: [3] })).toBe(4);
  });

  it("is counted as acknowledgements say, once", () => {
    const { xbzrle } = make(8);
    Xbzrle.note(xbzrle, { pages: 10, bytes: 400, overflow: 2 }, 1);
    Xbzrle.note(xbzrle, { pages: 10, bytes: 400, overflow: 2 }, 0.5);
    Xbzrle.note(xbzrle, { pages: 10, bytes: 400, overflow: 2 }, 0);
    expect(Xbzrle.infoOf(xbzrle)).toMatchObject({ pages: 15, bytes: 600, overflow: 3, "encoding-rate": 102.4 });
  });
});
