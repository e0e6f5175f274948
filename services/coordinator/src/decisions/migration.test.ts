import { PARAMETER_DEFAULTS } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { infoOf, statusOf } from "./info.ts";
import type { MigrationEffect } from "./migration-state.ts";
import {
  ATTEMPTS_MAX,
  commandsIn,
  destinationReport,
  entryOf,
  FAILURE,
  START,
  sourceReport,
  until,
  verdict,
  Watch,
} from "./migration-watch.conformance.ts";

const fate = fc.record({
  bucket: fc.constantFrom("quick", "slow"),
  helpful: fc.integer({ min: 3, max: 10 }),
  adopting: fc.integer({ min: 0, max: 9 }),
  events: fc.array(
    fc.tuple(fc.nat(9), fc.nat(100_000), fc.oneof(fc.nat(50), fc.nat(300), fc.constantFrom(1000, 15_000))),
    { minLength: 10, maxLength: 60, size: "max" },
  ),
});

describe("a migration, whatever comes in whatever order", () => {
  it("never throws, tries so often and no more, and ends once, with its reason; who is told otherwise is told to stop", () => {
    const phases = new Set<string>();
    const endings = new Set<string>();
    fc.assert(
      fc.property(fate, ({ bucket, helpful, adopting, events }) => {
        const watch = new Watch(adopting === 0 ? { _tag: "Adopting" } : { _tag: "Claiming" });
        watch.bucket = bucket;
        for (const [kind, choice, ms] of events) {
          // Either others were silent so long, or this coordinator slept.
          if (choice % 2 === 0) watch.pass(ms);
          else watch.now += ms;
          const wanted = kind < helpful ? watch.helpful() : watch.anyTime(choice >> 4);
          const candidates = wanted.length > 0 ? wanted : watch.anyTime(choice >> 4);
          watch.happen(candidates[choice % candidates.length]!);
          phases.add(watch.migration.phase._tag);
        }
        endings.add(watch.ended ?? "none");
      }),
      { numRuns: 2000 },
    );
    // A property that never saw a phase said nothing about it.
    expect([...phases].sort()).toEqual([
      ...["Aborting", "Active", "Adopting", "Claiming", "Ended", "Ending"],
      ...["Postcopy", "Preparing", "Reckoning", "Replaced", "Starting", "Switching"],
    ]);
    expect([...endings].sort()).toEqual(["cancelled", "completed", "failed", "none"]);
  });
});

describe("a migration", () => {
  it("goes from claim to completion, and says each command at once and again every 250 ms", () => {
    const watch = new Watch();
    for (const command of ["Claim", "Prepare", "Start"]) {
      watch.now += 250;
      expect(commandsIn(watch.happen({ _tag: "Tick" }))).toContain(command);
      watch.now += 249;
      expect(commandsIn(watch.happen({ _tag: "Tick" }))).not.toContain(command);
      watch.happen(watch.helpful()[0]!);
    }
    until(watch, "Ended");
    expect(watch.ended).toBe("completed");
  });

  it("that is a postcopy completes by the destination's word, when the source has no last counters to tell", () => {
    const watch = until(new Watch(), "Active");
    watch.happen({ _tag: "SourceReported", report: sourceReport(watch.migration, { phase: "postcopy" }) });
    watch.happen({ _tag: "DestinationReported", report: destinationReport(watch.migration, { phase: "running" }) });
    expect(watch.ended).toBe("completed");
  });
  it("says to a source that asks whether to go on or to switch over", () => {
    const watch = until(new Watch(), "Active");
    const asked = (remaining: number) =>
      watch.happen({
        _tag: "SourceReported",
        report: sourceReport(watch.migration, { phase: "precopy", verdict: verdict(remaining)! }),
      });
    const wordOf = (effects: ReadonlyArray<MigrationEffect>) =>
      effects.flatMap((e) => (e._tag === "ToSource" && e.command._tag === "Verdict" ? [e.command.verdict] : []));
    expect(wordOf(asked(1e12))).toEqual(["iterate"]);
    expect(wordOf(asked(0))).toEqual(["switch-over"]);
  });

  it.each(["Claiming", "Preparing", "Starting", "Active", "Switching"] as const)(
    "that is cancelled in %s ends cancelled",
    (phase) => {
      const watch = until(new Watch(), phase);
      expect(commandsIn(watch.happen({ _tag: "Cancel" }))).toContain("Abort");
      expect(statusOf(watch.migration)).toBe("cancelling");
      until(watch, "Ended");
      expect(watch.ended).toBe("cancelled");
      expect(infoOf(watch.migration, watch.now).error?.code).toBe("cancelled");
    },
  );

  it.each([
    ["Claiming", "failed"],
    ["Preparing", "failed"],
    ["Starting", "failed"],
    ["Active", "completed"],
    ["Switching", "completed"],
  ] as const)("whose command is refused for its version in %s ends %s", (phase, ending) => {
    const watch = until(new Watch(), phase);
    const why = { code: "version-mismatch", actor: "loader", step: "decode a message", reason: "5.0" } as const;
    watch.happen({ _tag: "CommandRefused", failure: why });
    until(watch, "Ended");
    expect(watch.ended).toBe(ending);
    expect(infoOf(watch.migration, watch.now).error).toEqual(ending === "failed" ? why : undefined);
  });

  it("that was handed over before the cancel arrived is completed", () => {
    const watch = until(new Watch(), "Switching");
    watch.happen({ _tag: "Cancel" });
    watch.happen({ _tag: "SourceReported", report: sourceReport(watch.migration, { phase: "completed" }) });
    expect(watch.ended).toBe("completed");
    expect(infoOf(watch.migration, watch.now)).not.toHaveProperty("error");
  });

  it("whose source process dies again and again is tried five times and no more", () => {
    const watch = new Watch();
    for (let life = 0; watch.ended === null; life++) {
      if (life > 20) throw new Error("it never ends");
      until(watch, "Active");
      const incarnation = String(life).padStart(16, "0") as never;
      watch.happen({
        _tag: "SourceReported",
        report: sourceReport(watch.migration, { phase: "unknown", incarnation, attempt: 0, epoch: 0 }),
      });
      expect(watch.migration.phase._tag).toBe("Reckoning");
      // As it was before: this may be an old answer, and the guest on its way to the destination meanwhile.
      const { epoch } = watch.migration;
      watch.happen({ _tag: "RecordRead", entry: entryOf({ state: "source", epoch: epoch as never }) });
      expect(watch.migration.phase._tag).toBe("Reckoning");
      watch.happen({ _tag: "RecordRead", entry: entryOf({ state: "source", epoch: (epoch + 1) as never }) });
    }
    expect(watch.ended).toBe("failed");
    expect(watch.migration.attempt).toBe(ATTEMPTS_MAX);
  });

  it("whose record decides how it ended is not turned by a destination that says it has failed, however often", () => {
    const watch = until(new Watch(), "Switching");
    watch.happen({ _tag: "Cancel" });
    watch.pass(15_000);
    expect(watch.migration.phase).toMatchObject({ _tag: "Reckoning", next: "cancelled" });
    const failed = destinationReport(watch.migration, { phase: "failed", failure: FAILURE });
    watch.happen({ _tag: "DestinationReported", report: failed });
    expect(watch.migration.phase).toMatchObject({ _tag: "Reckoning", next: "cancelled" });
  });

  it("that is cancelled while it waits in pre-switchover is not continued after all", () => {
    const watch = until(new Watch(), "Switching");
    const waits = (): ReadonlyArray<MigrationEffect> =>
      watch.happen({ _tag: "SourceReported", report: sourceReport(watch.migration, { phase: "pre-switchover" }) });
    waits();
    expect(commandsIn(watch.happen({ _tag: "Continue" }))).toContain("Continue");
    expect(commandsIn(waits())).toContain("Continue");
    watch.happen({ _tag: "Cancel" });
    expect(commandsIn(waits())).not.toContain("Continue");
    expect(commandsIn(watch.happen({ _tag: "Continue" }))).not.toContain("Continue");
  });

  it("that was cancelled tells a destination that has not heard to abandon it, and one that was completed does not", () => {
    const cancelled = until(new Watch(), "Active");
    cancelled.happen({ _tag: "Cancel" });
    for (const watch of [until(cancelled, "Ended"), until(new Watch(), "Ended")]) {
      const says = (phase: "ready" | "loading" | "failed" | "running") =>
        commandsIn(
          watch.happen({ _tag: "DestinationReported", report: destinationReport(watch.migration, { phase }) }),
        );
      for (const phase of ["ready", "loading"] as const)
        expect(says(phase)).toEqual(watch === cancelled ? ["Abandon"] : []);
      for (const phase of ["failed", "running"] as const) expect(says(phase)).toEqual(["Conclude", "Conclude"]);
    }
  });

  it("that shall be encrypted goes on only with a destination that says it opens sealed packets", () => {
    const refused = { replayed: 0, forged: 3 };
    for (const change of [{}, { "refused-packets": refused }]) {
      const watch = until(new Watch(), "Preparing");
      const migration = watch.migration as {
        -readonly [K in keyof typeof watch.migration]: (typeof watch.migration)[K];
      };
      migration.capabilities = { ...migration.capabilities, encryption: true };
      expect(infoOf(migration, watch.now)).not.toHaveProperty("encryption");
      watch.happen({
        _tag: "DestinationReported",
        report: destinationReport(migration, { phase: "ready", ...change }),
      });
      if ("refused-packets" in change) {
        expect(migration.phase._tag).toBe("Starting");
        expect(infoOf(migration, watch.now).encryption).toEqual({ cipher: "aes-256-gcm", "refused-packets": refused });
      } else {
        expect(migration.phase).toMatchObject({ _tag: "Aborting", next: "failed" });
        expect(migration.failure).toMatchObject({ code: "incompatible" });
      }
    }
  });

  it("is not tuned after its end", () => {
    const watch = until(new Watch(), "Ended");
    const { parametersRevision } = watch.migration;
    expect(watch.happen({ _tag: "Tune", parameters: PARAMETER_DEFAULTS })).toEqual([]);
    expect(watch.migration.parametersRevision).toBe(parametersRevision);
  });

  it("prepares a destination only with what the source offers", () => {
    const watch = new Watch();
    const { offer: _, ...bare } = sourceReport(watch.migration, { phase: "claimed", epoch: 2 });
    watch.happen({ _tag: "SourceReported", report: bare });
    watch.now += 250;
    expect(commandsIn(watch.happen({ _tag: "Tick" }))).not.toContain("Prepare");
  });

  it("gives up at its deadline, and says which", () => {
    const watch = until(new Watch(), "Active");
    watch.now = START + PARAMETER_DEFAULTS["migration-deadline"];
    watch.pass(500);
    expect(watch.migration.failure?.code).toBe("migration-deadline");
  });
});
