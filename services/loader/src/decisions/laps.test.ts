import { describe, expect, it } from "vitest";
import { EPOCH, entryOf, FAILURE, Watch } from "./destination-watch.conformance.ts";
import * as Fence from "./fence.ts";
import { reportOf } from "./loader.ts";

const ready = (): Watch => {
  const watch = new Watch();
  watch.happen({ _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(1000)), loaded: false });
  return watch;
};
const PROMISE = { _tag: "RecordRead", op: "promise", entry: entryOf({ state: "switching" }, 7) } as const;
/** All of the promised round, as the shell applies it. */
const apply = (watch: Watch): void => {
  for (const item of [0, 1]) Fence.applied(watch.destination.fence, { round: 2, item });
  watch.happen({ _tag: "PacketsApplied" });
};
/** Each event 5 ms after the one before. */
const later = (watch: Watch, ...events: ReadonlyArray<Parameters<Watch["happen"]>[0]>): void => {
  for (const event of events) {
    watch.now += 5;
    watch.happen(event);
  }
};
const goOn = (watch: Watch): void => {
  while (watch.destination.phase._tag !== "Running") later(watch, watch.helpful()[0]!);
};
const partsOf = (watch: Watch) =>
  (reportOf(watch.destination).waterfall?.parts ?? []).map(({ part, begin, length }) => [part, begin, length]);

describe("what a destination measures of a switchover", () => {
  it("begins when it is told, has no gap, and ends when the guest runs", () => {
    const watch = ready();
    later(watch, { _tag: "PacketsApplied" }, { _tag: "SwitchingTold", epoch: EPOCH }, PROMISE);
    watch.now += 5;
    apply(watch);
    goOn(watch);
    expect(partsOf(watch)).toEqual([
      ["read-record", 0, 5000],
      ["final-round", 5000, 5000],
      ["load-device-state", 10_000, 5000],
      ["commit", 15_000, 5000],
      ["start", 20_000, 5000],
    ]);
    expect(reportOf(watch.destination).waterfall!.total).toBe(25_000);
  });

  it("has no wait for the last round that was there before the record was read", () => {
    const watch = ready();
    apply(watch);
    later(watch, { _tag: "SwitchingTold", epoch: EPOCH }, PROMISE);
    goOn(watch);
    expect(partsOf(watch).map(([part]) => part)).toEqual(["read-record", "load-device-state", "commit", "start"]);
  });

  it("is nothing before it is told, nor by a word of another attempt", () => {
    const watch = ready();
    later(watch, { _tag: "SwitchingTold", epoch: EPOCH + 1 }, { _tag: "PacketsApplied" });
    expect(reportOf(watch.destination)).not.toHaveProperty("waterfall");
  });

  it("begins with the record where nobody has told it: a restarted loader looks itself", () => {
    const watch = ready();
    later(watch, PROMISE, { _tag: "SwitchingTold", epoch: EPOCH });
    watch.now += 5;
    apply(watch);
    expect(partsOf(watch)).toEqual([["final-round", 0, 10_000]]);
  });

  it("of an attempt that fails shows what was done until then", () => {
    const watch = ready();
    later(watch, { _tag: "SwitchingTold", epoch: EPOCH }, PROMISE);
    apply(watch);
    later(watch, { _tag: "LocalFailed", step: "load-device-state", failure: FAILURE }, { _tag: "Discarded" });
    expect(reportOf(watch.destination).phase).toBe("failed");
    expect(partsOf(watch).map(([part]) => part)).toEqual(["read-record", "final-round", "load-device-state"]);
  });
});
