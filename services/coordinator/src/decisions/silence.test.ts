import { describe, expect, it } from "vitest";
import { sourceReport, until, Watch } from "./migration-watch.conformance.ts";

/** The destination speaks, the source does not; or the other way round. */
const hear = (watch: Watch, who: "source" | "destination", forMs: number): void => {
  for (let ms = 0; ms < forMs; ms += 200) {
    watch.now += 200;
    const { migration } = watch;
    if (who === "source") {
      const phase = migration.phase._tag === "Preparing" ? "claimed" : "precopy";
      watch.happen({ _tag: "SourceReported", report: sourceReport(migration, { phase }) });
    }
    watch.happen({ _tag: "Tick" });
  }
};

describe("before the switchover", () => {
  it.each(["Claiming", "Preparing", "Starting", "Active", "Adopting"] as const)(
    "nobody is given up in %s for a silence of 30 s, and then everything goes on where it was",
    (phase) => {
      const watch = phase === "Adopting" ? new Watch({ _tag: phase }) : until(new Watch(), phase);
      watch.pass(30_000);
      expect(watch.migration.phase._tag).toBe(phase);
      expect(watch.migration.attempt).toBe(1);
      watch.happen(watch.helpful()[0]!);
      expect(["Ending", "Ended", "Aborting"]).not.toContain(watch.migration.phase._tag);
    },
  );

  it.each(["Preparing", "Active"] as const)(
    "a destination alone is not given up in %s for 30 s, but for 60 s",
    (phase) => {
      const watch = until(new Watch(), phase);
      hear(watch, "source", 30_000);
      expect(watch.migration.phase._tag).toBe(phase);
      hear(watch, "source", 31_000);
      expect(watch.migration).toMatchObject({ phase: { _tag: "Aborting" }, failure: { code: "destination-lost" } });
    },
  );

  it("a source that has been silent for a minute is given up, and the record decides", () => {
    const watch = until(new Watch(), "Active");
    watch.pass(61_000);
    expect(watch.migration).toMatchObject({
      phase: { _tag: "Reckoning", silent: true },
      failure: { code: "source-lost" },
    });
  });
});

describe("in the switchover", () => {
  it("a source that is silent for 15 s is given up: the guest may stand still", () => {
    const watch = until(new Watch(), "Switching");
    watch.pass(14_000);
    expect(watch.migration.phase._tag).toBe("Switching");
    watch.pass(2000);
    expect(watch.migration.phase._tag).toBe("Reckoning");
  });
});
