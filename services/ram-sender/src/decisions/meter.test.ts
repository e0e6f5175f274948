import { Ledger } from "@godwit/multifd";
import { NO_XBZRLE, PARAMETER_DEFAULTS, proposeCapabilities } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { itemsApplied, pump } from "./precopy.ts";
import { reportOf } from "./report.ts";
import { makeSource, step } from "./source.ts";
import type { Source, SourceEffect } from "./source-state.ts";

const PAGES = 64 * 200;
const ITEM_PAGES = 64;

/** A source in precopy whose first round has found everything. */
const inPrecopy = (): Source => {
  const source = makeSource({
    migration: "0123456789abcdef",
    guest: "vm1",
    node: "a",
    incarnation: "a".repeat(16),
    destination: "b",
    authority: { term: 1, coordinator: null },
    attempt: 1,
    parameters: { ...PARAMETER_DEFAULTS, "max-bandwidth": 0 },
    capabilities: proposeCapabilities({}) as never,
    itemPagesMax: ITEM_PAGES,
    now: 0,
  });
  source.epoch = 1;
  source.destination = { node: "b", life: 0, incarnation: "d".repeat(16) };
  source.blockPages = [PAGES];
  source.ledger = Ledger.make([PAGES], ITEM_PAGES);
  Ledger.beginRound(source.ledger);
  Ledger.found(source.ledger, 0, 0, PAGES);
  source.phase = { _tag: "Precopy", scanning: false, verdict: "asked" };
  return source;
};

const applied = (items: ReadonlyArray<number>, normalPages: number) => ({
  items: Uint32Array.from(items),
  normalPages,
  wireBytes: normalPages * 4096,
  xbzrle: NO_XBZRLE,
});

describe("the meter", () => {
  it("counts the pages of an item once, however often it is acknowledged; bytes on the wire are what they are", () => {
    const source = inPrecopy();
    step(source, { _tag: "WorkerUp", worker: "0" }, 0);
    pump(source, 0, () => {});
    itemsApplied(source, applied([0, 1], 80), 10);
    itemsApplied(source, applied([0, 1], 80), 20);
    itemsApplied(source, applied([1, 2, 3], 120), 30);
    const { ram } = reportOf(source, 40);
    expect(ram).toMatchObject({ normal: 160, duplicate: 4 * ITEM_PAGES - 160, transferred: 280 * 4096 });
  });

  it("shows a way that became faster also in a round that moves little, and a slower one only in one that moves much", () => {
    const source = inPrecopy();
    step(source, { _tag: "WorkerUp", worker: "0" }, 0);
    pump(source, 0, () => {});
    source.meter.bandwidth = 1_000_000;
    itemsApplied(source, applied([0], ITEM_PAGES), 10);
    expect(source.meter.bandwidth).toBeCloseTo((ITEM_PAGES * 4096 * 1000) / 10);
    itemsApplied(source, applied([1], ITEM_PAGES), 1000);
    expect(source.meter.bandwidth).toBeCloseTo((ITEM_PAGES * 4096 * 1000) / 10);
    itemsApplied(source, applied([2, 3, 4], 3 * ITEM_PAGES), 2000);
    expect(source.meter.bandwidth).toBeLessThan(1_000_000);
  });

  it("learns how long a slow path takes, though every first item was late", () => {
    const source = inPrecopy();
    const acknowledgements: Array<{ readonly at: number; readonly item: number }> = [];
    let now = 0;
    const handOut = (effects: ReadonlyArray<SourceEffect>): void => {
      for (const effect of effects) {
        if (effect._tag === "Dispatch") acknowledgements.push({ at: now + 600, item: effect.item.item });
      }
    };
    handOut(step(source, { _tag: "WorkerUp", worker: "0" }, now));
    while (!Ledger.isDone(source.ledger)) {
      now += 10;
      handOut(step(source, { _tag: "Tick" }, now));
      for (const { item } of acknowledgements.filter(({ at }) => at === now)) {
        itemsApplied(source, applied([item], ITEM_PAGES), now);
      }
    }
    // The first windows go out more than once; the 180 items after them do not.
    expect(source.ledger.resentItems).toBeLessThan(60);
  });
});
