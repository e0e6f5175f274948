import { describe, expect, it } from "vitest";
import { infoOf, statusOf } from "./info.ts";
import { destinationReport, sourceReport, until, verdict, Watch } from "./migration-watch.conformance.ts";

describe("what is shown of a migration", () => {
  it("has QEMU's status for every phase", () => {
    const watch = new Watch();
    const seen = new Map<string, string>();
    for (const phase of ["Claiming", "Preparing", "Starting", "Active", "Switching", "Ended"] as const) {
      until(watch, phase);
      seen.set(phase, statusOf(watch.migration));
    }
    expect(Object.fromEntries(seen)).toEqual({
      Claiming: "setup",
      Preparing: "setup",
      Starting: "setup",
      Active: "active",
      Switching: "device",
      Ended: "completed",
    });
    const waiting = until(new Watch(), "Switching");
    waiting.happen({ _tag: "SourceReported", report: sourceReport(waiting.migration, { phase: "pre-switchover" }) });
    expect(statusOf(waiting.migration)).toBe("pre-switchover");
  });

  it("stands still when it has ended, and shows no prediction any more", () => {
    const watch = until(new Watch(), "Ended");
    const info = infoOf(watch.migration, watch.now);
    expect(infoOf(watch.migration, watch.now + 1e6)).toEqual(info);
    expect(info).not.toHaveProperty("expected-downtime");
  });

  it("fits JSON while no bandwidth was measured: the prediction is a number all the same", () => {
    const watch = until(new Watch(), "Active");
    const report = sourceReport(watch.migration, { phase: "precopy", verdict: { ...verdict(1e9)!, bandwidth: 0 } });
    watch.happen({ _tag: "SourceReported", report });
    const info = infoOf(watch.migration, watch.now);
    expect(info["expected-downtime"]).toBe(Number.MAX_SAFE_INTEGER);
    expect(watch.info.decode(watch.info.encode(info))).toEqual(info);
  });

  it("shows where the downtime went as the source tells it, and the destination's parts where nobody else has measured any", () => {
    const { migration, now } = until(new Watch(), "Switching");
    const part = { part: "load-device-state", side: "destination", begin: 0, length: 5 } as const;
    const ofSource = { parts: [{ ...part, begin: 7 }], total: 14, rest: 2 };
    migration.destinationReport = destinationReport(migration, { waterfall: { parts: [part], total: 5 } });
    expect(infoOf(migration, now)).not.toHaveProperty("waterfall");
    migration.sourceReport = sourceReport(migration, { phase: "completed", waterfall: ofSource });
    expect(infoOf(migration, now).waterfall).toEqual(ofSource);
    migration.sourceReport = null;
    expect(infoOf(migration, now).waterfall).toEqual({ parts: [part] });
    migration.destinationReport = { ...migration.destinationReport, epoch: migration.epoch + 1 };
    expect(infoOf(migration, now)).not.toHaveProperty("waterfall");
  });

  it("shows with each channel by which lane the destination has seen its packets come", () => {
    const watch = until(new Watch(), "Active");
    const channels = [0, 1].map((channel) => ({ channel, worker: "0", epoch: 1, "in-flight": 0 }));
    const report = sourceReport(watch.migration, { phase: "precopy", channels });
    watch.happen({ _tag: "SourceReported", report });
    expect(infoOf(watch.migration, watch.now).channels).toEqual(channels);
    const count = { lane: "direct", nats: 1, direct: 7 } as const;
    const lanes = [
      { purpose: "ram", channel: 1, ...count },
      { purpose: "devices", channel: 1, ...count },
    ] as const;
    watch.happen({ _tag: "DestinationReported", report: { ...watch.migration.destinationReport!, lanes } });
    expect(infoOf(watch.migration, watch.now).channels).toEqual([
      channels[0],
      { ...channels[1], lanes: lanes.map(({ channel: _, ...rest }) => rest) },
    ]);
    const refused = { code: "incompatible", actor: "loader", step: "compare", reason: "x", differences: [] } as const;
    watch.migration.failure = refused;
    expect(infoOf(watch.migration, watch.now).channels).toEqual(channels);
  });

  it("says in plain words why a guest stands still whose record cannot be reached, and only then", () => {
    const watch = until(new Watch(), "Switching");
    const report = (change: object): void =>
      void watch.happen({ _tag: "SourceReported", report: sourceReport(watch.migration, change) });
    report({ phase: "switching", "record-unknown-for": 7400 });
    expect(infoOf(watch.migration, watch.now).note).toMatch(
      /record cannot be reached since 7 s: the guest stands still/,
    );
    report({ phase: "switching" });
    expect(infoOf(watch.migration, watch.now)).not.toHaveProperty("note");
    report({ phase: "completed", "record-unknown-for": 7400 });
    expect(infoOf(watch.migration, watch.now)).not.toHaveProperty("note");
  });
});
