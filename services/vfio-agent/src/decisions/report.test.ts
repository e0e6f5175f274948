import { json, LoadReport, SaveReport } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { LoadingByHand, SavingByHand } from "./conformance/by-hand.ts";
import { type Outcome, run } from "./conformance/run.ts";
import { STORMY } from "./conformance/setting.ts";
import { loadReportOf, saveReportOf } from "./report.ts";

const ID = "0123456789abcdef";
const saves = json(SaveReport);
const loads = json(LoadReport);

describe("a report", () => {
  it("is what the protocol says, whatever has happened", () => {
    const outcomes: Outcome[] = Array.from({ length: 40 }, (_, index) => run(index + 1, { faults: STORMY }));
    for (const { source, destination } of outcomes) {
      const named = { migration: ID as never, incarnation: ID as never };
      if (source.saving !== null) {
        const report = { ...saveReportOf(source.saving), ...named };
        expect(saves.decode(saves.encode(report))).toEqual(report);
      }
      if (destination.loading !== null) {
        const report = { ...loadReportOf(destination.loading), ...named };
        expect(loads.decode(loads.encode(report))).toEqual(report);
      }
    }
  });

  it("of the source shows what is on its way, and the streams only once every byte was read", () => {
    const hand = new SavingByHand(1).opened(0, { preCopy: true }).arrived(0, "PRE_COPY").info(0, 100, 50);
    hand.read(0, 100).info(0, 0, 50);
    expect(saveReportOf(hand.saving)).toMatchObject({
      stage: "precopy",
      devices: [
        { state: "PRE_COPY", "initial-bytes": 0, "dirty-bytes": 50, queued: 100, transferred: 0, "initial-end": 100 },
      ],
    });
    hand.wanted("stopped").applied(0);
    expect(saveReportOf(hand.saving)).toMatchObject({ stage: "stopping", devices: [{ queued: 0, transferred: 100 }] });
    hand.read(0, 0).arrived(0, "STOP_COPY").read(0, 60).read(0, 0);
    expect(saveReportOf(hand.saving)).toMatchObject({ stage: "stopped" });
    expect(saveReportOf(hand.saving).streams).toBeUndefined();
    hand.answer({ _tag: "ConfigRead", device: 0, bytes: 256, digest: 9 }, 0);
    expect(saveReportOf(hand.saving).streams).toEqual([
      { device: "dev0", bytes: 160, digest: 0, "config-bytes": 256, "config-digest": 9 },
    ]);
  });

  it("of the destination says `loading` between the wish and its fulfilment, and who has loaded its initial data", () => {
    const hand = new LoadingByHand(1).opened(0, { preCopy: true }).arrived(0, "RESUMING");
    expect(loadReportOf(hand.loading)).toMatchObject({ stage: "ready", devices: [{ "initial-loaded": false }] });
    hand.happen({ _tag: "InitialEnds", device: "dev0", at: 0 }).wanted("loaded");
    expect(loadReportOf(hand.loading)).toMatchObject({ stage: "loading", devices: [{ "initial-loaded": true }] });
    hand.arrived(0, "STOP");
    expect(loadReportOf(hand.loading).stage).toBe("loaded");
  });

  it("of a device that cannot be precopied says nothing of initial data", () => {
    const hand = new LoadingByHand(1).opened(0);
    expect(loadReportOf(hand.loading).devices[0]).not.toHaveProperty("initial-loaded");
  });
});
