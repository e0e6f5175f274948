/** Which attempts a coordinator believes its source to be in. */
import { describe, expect, it } from "vitest";
import { entryOf, sourceReport, until, Watch } from "./migration-watch.conformance.ts";
import { finish } from "./moves.ts";

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

describe("another attempt", () => {
  it("has all of stall-timeout for itself, since all memory is dirty again", () => {
    const { migration } = until(new Watch(), "Active");
    migration.progress = { startedAt: 5, bestRemaining: 100, bestAt: 10 };
    finish(migration, "retry", 50_000);
    expect(migration.progress).toEqual({ startedAt: 5, bestRemaining: Number.POSITIVE_INFINITY, bestAt: 50_000 });
  });
});

describe("a source that has forgotten, whose record stays as it was", () => {
  it("is fenced off after ten seconds of looking: its sender had read an old record, and takes nothing back", () => {
    const watch = until(new Watch(), "Active");
    watch.happen({
      _tag: "SourceReported",
      report: sourceReport(watch.migration, {
        phase: "unknown",
        incarnation: "9".repeat(16) as never,
        attempt: 0,
        epoch: 0,
      }),
    });
    const stays = {
      _tag: "RecordRead",
      entry: entryOf({ state: "source", epoch: watch.migration.epoch as never }),
    } as const;
    for (let look = 0; look < 40; look++) watch.happen(stays);
    expect(watch.migration.phase).toMatchObject({ _tag: "Reckoning", settlement: null });
    watch.happen(stays);
    expect(watch.migration.phase).toMatchObject({ settlement: { record: { epoch: watch.migration.epoch + 1 } } });
  });
});
