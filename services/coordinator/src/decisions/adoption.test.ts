import { PARAMETER_DEFAULTS, type SourceReport } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { adopt, orphansOf, takenOver, untoldOf } from "./adoption.ts";
import { savedOf, statusOf } from "./info.ts";
import { step } from "./migration.ts";
import type { Migration, MigrationEffect, SavedMigration } from "./migration-state.ts";
import { commandsIn, destinationReport, START, sourceReport, until, Watch } from "./migration-watch.conformance.ts";

const SUCCESSOR = "d".repeat(16);

/** A successor of the coordinator whose migration this is, from what was saved last. */
const successorOf = (saved: SavedMigration): Migration =>
  adopt({ saved: takenOver(saved, SUCCESSOR), revision: 20 }, START);
const reports = (migration: Migration, change: Partial<SourceReport>): ReadonlyArray<MigrationEffect> =>
  step(migration, { _tag: "SourceReported", report: sourceReport(migration, change) }, START);
const tick = (migration: Migration): ReadonlyArray<MigrationEffect> => step(migration, { _tag: "Tick" }, START);
const savedIn = (phase: "Claiming" | "Active" | "Switching"): SavedMigration => {
  const watch = until(new Watch(), phase);
  return savedOf(watch.migration, watch.now);
};

describe("migrations that a coordinator takes over", () => {
  const saved = savedIn("Active");
  const stored = (owner: string, migration: string, status: SavedMigration["info"]["status"] = "active") => ({
    saved: { ...saved, owner, info: { ...saved.info, migration: migration as never, status } },
    revision: 1,
  });

  it("are those whose owner is gone, and its own that it does not know of; not those that have ended", () => {
    const all = [
      stored("living", "1"),
      stored("gone", "2"),
      stored("gone", "3", "completed"),
      stored("me", "4"),
      stored("me", "5"),
      stored("gone", "6", "pre-switchover"),
    ];
    const orphans = orphansOf(
      all,
      "me",
      (owner) => owner === "living",
      (migration) => migration === "4",
    );
    expect(orphans.map((orphan) => orphan.saved.info.migration)).toEqual(["2", "5", "6"]);
  });

  it("have their ending told by others when their coordinator may not have lived to tell it, for a minute", () => {
    const all = [stored("living", "1", "completed"), stored("gone", "2", "failed"), stored("gone", "3")];
    const endedAt = saved.startedAt + saved.info["total-time"];
    const told = (now: number): string[] =>
      untoldOf(all, (owner) => owner === "living", now).map(({ info }) => info.migration);
    expect(told(endedAt)).toEqual(["2"]);
    expect(told(endedAt + 60_000)).toEqual([]);
  });

  it("get a higher term, and with it an owner", () => {
    expect(takenOver(saved, SUCCESSOR)).toMatchObject({ term: saved.term + 1, owner: SUCCESSOR });
    expect(successorOf(saved)).toMatchObject({ term: saved.term + 1, tenure: { owner: SUCCESSOR, revision: 20 } });
  });
});

describe("a successor", () => {
  it("asks the source how it stands, and believes nothing that was said before it came", () => {
    const migration = successorOf(savedIn("Active"));
    expect(tick(migration)).toContainEqual({
      _tag: "ToSource",
      command: expect.objectContaining({ _tag: "Inspect", term: migration.term, coordinator: SUCCESSOR }),
    });
    reports(migration, { phase: "claimed", term: migration.term - 1 });
    expect(migration.phase._tag).toBe("Adopting");
    reports(migration, { phase: "precopy" });
    expect(migration.phase._tag).toBe("Active");
    expect(migration.attempt).toBe(1);
  });

  it("makes itself known to the destination at once, and until that shows it: a late word to abandon must be refused", () => {
    const migration = successorOf(savedIn("Active"));
    const toDestination = (effects: ReadonlyArray<MigrationEffect>): string[] =>
      effects.flatMap((effect) => (effect._tag === "ToDestination" ? [effect.command._tag] : []));
    expect(toDestination(tick(migration))).toEqual(["Inspect"]);
    reports(migration, { phase: "precopy" });
    const heard = (term: number): string[] => {
      const report = destinationReport(migration, { term, "parameters-revision": migration.parametersRevision });
      return toDestination(step(migration, { _tag: "DestinationReported", report }, START));
    };
    expect(heard(migration.term - 1)).toEqual(["Inspect"]);
    expect(heard(migration.term)).toEqual([]);
  });

  it("goes on cancelling what its predecessor was told to cancel", () => {
    const watch = until(new Watch(), "Active");
    watch.happen({ _tag: "Cancel" });
    const migration = successorOf(savedOf(watch.migration, watch.now));
    expect(statusOf(migration)).toBe("cancelling");
    expect(commandsIn(tick(migration))).toEqual(expect.arrayContaining(["Abort", "Abandon"]));
    expect(migration.failure?.code).toBe("cancelled");
  });

  it("tries again what its predecessor wanted to try again", () => {
    const watch = until(new Watch(), "Active");
    const gone = { phase: "unknown", incarnation: "e".repeat(16) as never, attempt: 0, epoch: 0 } as const;
    watch.happen({ _tag: "SourceReported", report: sourceReport(watch.migration, gone) });
    const migration = successorOf(savedOf(watch.migration, watch.now));
    reports(migration, { phase: "failed" });
    expect(migration).toMatchObject({ attempt: 2, phase: { _tag: "Claiming" } });
  });

  it("says the operator's `continue` again that its predecessor was told", () => {
    const watch = until(new Watch(), "Switching");
    watch.happen({ _tag: "SourceReported", report: sourceReport(watch.migration, { phase: "pre-switchover" }) });
    watch.happen({ _tag: "Continue" });
    const migration = successorOf(savedOf(watch.migration, watch.now));
    reports(migration, { phase: "pre-switchover" });
    expect(commandsIn(reports(migration, { phase: "pre-switchover" }))).toContain("Continue");
    // It holds for its own attempt alone.
    const other = successorOf({ ...savedOf(watch.migration, watch.now), continuedAttempt: 3 });
    reports(other, { phase: "pre-switchover" });
    expect(commandsIn(reports(other, { phase: "pre-switchover" }))).not.toContain("Continue");
  });

  it("takes a `continue` before it has heard the source, when its predecessor saw it wait for that", () => {
    const watch = until(new Watch(), "Switching");
    watch.happen({ _tag: "SourceReported", report: sourceReport(watch.migration, { phase: "pre-switchover" }) });
    const migration = successorOf(savedOf(watch.migration, watch.now));
    step(migration, { _tag: "Continue" }, START);
    reports(migration, { phase: "pre-switchover" });
    expect(commandsIn(reports(migration, { phase: "pre-switchover" }))).toContain("Continue");
  });

  it("goes on with an attempt that its predecessor could not save any more", () => {
    const migration = successorOf(savedIn("Active"));
    reports(migration, { phase: "precopy", attempt: 3, epoch: 9 });
    expect(migration).toMatchObject({ attempt: 3, epoch: 9, phase: { _tag: "Active" } });
    const cancelled = successorOf({ ...savedIn("Active"), undoing: "cancelled" });
    reports(cancelled, { phase: "failed", attempt: 3, epoch: 9 });
    expect(cancelled.phase).toMatchObject({ _tag: "Ending", status: "cancelled" });
  });

  it("begins an attempt whose claim never arrived", () => {
    const migration = successorOf({ ...savedIn("Claiming"), attempt: 2 });
    const effects = reports(migration, { phase: "failed", attempt: 1 });
    expect(commandsIn(effects)).toContain("Claim");
    expect(migration.attempt).toBe(2);
    // A claim that did arrive, and an answer of before that came late: the source shows where it is.
    reports(migration, { phase: "precopy", attempt: 2, epoch: 5 });
    expect(migration).toMatchObject({ epoch: 5, phase: { _tag: "Active" } });
  });

  it("tells the source the parameters that are saved, whatever it was told before", () => {
    const saved = { ...savedIn("Active"), parameters: { ...PARAMETER_DEFAULTS, "downtime-limit": 123 } };
    const migration = successorOf(saved);
    reports(migration, { phase: "precopy", "parameters-revision": 7 });
    const told = reports(migration, { phase: "precopy", "parameters-revision": 7 });
    expect(told).toContainEqual({
      _tag: "ToSource",
      command: expect.objectContaining({ _tag: "Tune", parameters: saved.parameters }),
    });
    const revision = migration.parametersRevision;
    const quiet = reports(migration, { phase: "precopy", "parameters-revision": revision });
    expect(commandsIn(quiet)).not.toContain("Tune");
  });
});

describe("parameters that are changed", () => {
  const tuned = { ...PARAMETER_DEFAULTS, "downtime-limit": 77 };
  const report = (watch: Watch, revision?: number) =>
    watch.happen({
      _tag: "SourceReported",
      report: sourceReport(watch.migration, {
        phase: "precopy",
        ...(revision === undefined ? {} : { "parameters-revision": revision }),
      }),
    });

  it("are told until the source's report shows them: the first word may be lost", () => {
    const watch = until(new Watch(), "Active");
    report(watch);
    // The destination as well.
    expect(commandsIn(watch.happen({ _tag: "Tune", parameters: tuned }))).toEqual(["Tune", "Tune"]);
    expect(commandsIn(report(watch))).toContain("Tune");
    expect(commandsIn(report(watch, 0))).toContain("Tune");
    expect(commandsIn(report(watch, watch.migration.parametersRevision))).not.toContain("Tune");
  });

  it("are saved", () => {
    const watch = until(new Watch(), "Active");
    watch.bucket = "slow";
    expect(watch.happen({ _tag: "Tune", parameters: tuned }).map(({ _tag }) => _tag)).toContain("Save");
    expect(savedOf(watch.migration, watch.now).parameters).toEqual(tuned);
  });
});
