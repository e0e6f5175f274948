/** Which attempts a coordinator believes its source to be in. */
import { describe, expect, it } from "vitest";
import { sourceReport, until, Watch } from "./migration-watch.conformance.ts";

describe("a report of an attempt that this coordinator has not begun", () => {
  it("is not believed once it has heard its source: a stranger's `completed` must not end the migration", () => {
    const watch = until(new Watch(), "Active");
    const { attempt } = watch.migration;
    watch.happen({
      _tag: "SourceReported",
      report: sourceReport(watch.migration, { phase: "precopy", attempt, epoch: watch.migration.epoch }),
    });
    watch.happen({
      _tag: "SourceReported",
      report: sourceReport(watch.migration, { phase: "completed", attempt: attempt + 8 }),
    });
    expect(watch.migration.phase._tag).toBe("Active");
    expect(watch.migration.attempt).toBe(attempt);
  });
});
