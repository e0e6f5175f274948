import { Ledger } from "@godwit/multifd";
import { NO_SLOT, NO_XBZRLE, PAGE_BYTES, PARAMETER_DEFAULTS, proposeCapabilities } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { reportOf } from "./report.ts";
import { makeSource, step } from "./source.ts";
import type { Source, SourceEffect, SourceEvent } from "./source-state.ts";
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
    // What comes for the first time is not missed.
    expect(Xbzrle.infoOf(world.xbzrle)).toMatchObject({ "cache-miss": 0 });
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

describe("a source", () => {
  const DESTINATION = "d".repeat(16);
  /** In its first round, with two workers, and a slot for every page. */
  const inPrecopy = (capabilities: Record<string, boolean>): Source => {
    const source = makeSource({
      migration: "0123456789abcdef",
      guest: "vm1",
      node: "a",
      incarnation: "a".repeat(16),
      destination: "b",
      authority: { term: 1, coordinator: null },
      attempt: 1,
      parameters: { ...PARAMETER_DEFAULTS, "max-bandwidth": 0 },
      capabilities: proposeCapabilities(capabilities) as never,
      itemPagesMax: 64,
      now: 0,
    });
    source.epoch = 1;
    source.destination = { node: "b", life: 0, incarnation: DESTINATION };
    source.blockPages = [8];
    source.phase = { _tag: "OpeningTracker" };
    step(source, { _tag: "TrackerOpened", kind: "content" }, 0);
    for (const worker of ["0", "1"]) step(source, { _tag: "WorkerUp", worker }, 0);
    return source;
  };
  const dispatched = (effects: ReadonlyArray<SourceEffect>) =>
    effects.flatMap((effect) => (effect._tag === "Dispatch" ? [effect] : []));
  const send = (source: Source) =>
    dispatched(step(source, { _tag: "Found", round: source.ledger.round, block: 0, runs: [0, 4] }, 1))[0]!;
  const said = (source: Source, item: number) => ({
    epoch: source.epoch,
    round: source.ledger.round,
    incarnation: DESTINATION,
    items: Uint32Array.of(item),
  });
  const differs = (source: Source, item: number): SourceEvent => ({
    _tag: "Differs",
    ...said(source, item),
    differing: Uint8Array.of(1),
  });

  it("sends an item again, at once and whole, when its deltas were made for something else, and not for each copy of that answer", () => {
    const source = inPrecopy({ xbzrle: true });
    const first = send(source);
    expect(first.xbzrle).not.toBeNull();
    const again = dispatched(step(source, differs(source, first.item.item), 2));
    expect(again).toHaveLength(1);
    expect(again[0]).toMatchObject({ xbzrle: null, item: { item: first.item.item, attempts: 2 } });
    expect(dispatched(step(source, differs(source, first.item.item), 3))).toEqual([]);
    const count = { normalPages: 4, wireBytes: 100, xbzrle: { pages: 3, bytes: 90, overflow: 1 } };
    step(source, { _tag: "Applied", ...said(source, first.item.item), ...count }, 4);
    expect(reportOf(source, 5)["xbzrle-cache"]).toMatchObject({ "cache-size": 8 * PAGE_BYTES, pages: 3, overflow: 1 });
  });

  it("keeps nothing, and says nothing of it, without the capability", () => {
    const source = inPrecopy({});
    const { xbzrle, item } = send(source);
    expect(xbzrle).toBeNull();
    const count = { normalPages: 4, wireBytes: 100, xbzrle: NO_XBZRLE };
    step(source, { _tag: "Applied", ...said(source, item.item), ...count }, 4);
    expect(reportOf(source, 5)).not.toHaveProperty("xbzrle-cache");
  });
});
