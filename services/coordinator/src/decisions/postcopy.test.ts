import {
  type DestinationReport,
  PARAMETER_DEFAULTS,
  type PassReport,
  type PostcopyInfo,
  proposeCapabilities,
  type SourceReport,
} from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { adopt } from "./adoption.ts";
import { infoOf, savedOf, statusOf } from "./info.ts";
import { makeMigration, step } from "./migration.ts";
import type { Migration, MigrationEffect, MigrationEventIn } from "./migration-state.ts";

const EPOCH = 3;
const make = (capabilities: Record<string, boolean>, parameters = {}): Migration => {
  const migration = makeMigration({
    ...{ migration: "0123456789abcdef", guest: "vm1", source: "a", destination: "b", term: 1 },
    ...{ owner: "c".repeat(16), revision: 1, attempt: 1, startedAt: 0, now: 0 },
    parameters: { ...PARAMETER_DEFAULTS, ...parameters },
    capabilities: proposeCapabilities(capabilities) as never,
    phase: { _tag: "Active" },
  });
  migration.epoch = EPOCH;
  return migration;
};
const POSTCOPY = { "postcopy-ram": true };
const pass = (round: number, remaining = 1e9): PassReport => ({
  ...{ round, remaining, bandwidth: 1e8, unverified: 0, "verify-bandwidth": 0, "sync-ms": 1, running: true },
});
const source = (phase: SourceReport["phase"], of: Partial<SourceReport> = {}): SourceReport => ({
  migration: "0123456789abcdef" as SourceReport["migration"],
  incarnation: "00000000000000aa" as SourceReport["incarnation"],
  ...{ term: 1, attempt: 1, phase, epoch: EPOCH },
  ...of,
});
const info = (of: Partial<PostcopyInfo> = {}): PostcopyInfo => ({
  ...{ state: "active", remaining: 5 * 1024 ** 2, transferred: 7, requests: 3, blocktime: 1, "vcpu-blocktime": [1] },
  latency: { p50: 1, p90: 2, p99: 3, max: 4 },
  ...of,
});
const destination = (phase: DestinationReport["phase"], of: Partial<DestinationReport> = {}): DestinationReport => ({
  migration: "0123456789abcdef" as DestinationReport["migration"],
  incarnation: "00000000000000bb" as DestinationReport["incarnation"],
  ...{ term: 1, life: 0, phase, epoch: EPOCH, round: 2, "dropped-packets": 0 },
  ...of,
});
const verdicts = (effects: ReadonlyArray<MigrationEffect>): string[] =>
  effects.flatMap((effect) =>
    effect._tag === "ToSource" && effect.command._tag === "Verdict" ? [effect.command.verdict] : [],
  );
const judged = (migration: Migration, round: number, now = 10): string[] =>
  verdicts(step(migration, { _tag: "SourceReported", report: source("precopy", { verdict: pass(round) }) }, now));

describe("postcopy begins", () => {
  it("as soon as the operator has asked for it: the source is told until it shows that it has heard", () => {
    const migration = make(POSTCOPY);
    expect(judged(migration, 1)).toEqual(["iterate"]);
    step(migration, { _tag: "SourceReported", report: source("precopy") }, 15);
    const told = (event: MigrationEventIn, now: number): boolean =>
      step(migration, event, now).some(
        (effect) => effect._tag === "ToSource" && effect.command._tag === "StartPostcopy",
      );
    expect(told({ _tag: "StartPostcopy" }, 20)).toBe(true);
    expect(told({ _tag: "SourceReported", report: source("precopy") }, 25)).toBe(true);
    // One that waits for a verdict has its answer by that.
    expect(judged(migration, 2, 30)).toEqual(["start-postcopy"]);
    expect(told({ _tag: "SourceReported", report: source("precopy", { verdict: pass(2) }) }, 35)).toBe(false);
    expect(told({ _tag: "SourceReported", report: source("stopping") }, 40)).toBe(false);
  });
  it("after so many rounds as the parameter says, and by itself never with 0", () => {
    const migration = make(POSTCOPY, { "postcopy-after-rounds": 2 });
    expect([1, 2, 3].map((round) => judged(migration, round)[0])).toEqual(["iterate", "iterate", "start-postcopy"]);
    expect(judged(make(POSTCOPY), 900)).toEqual(["iterate"]);
  });
  it("where precopy would give up: at the pass limit, when it stalls, and at the deadline", () => {
    expect(judged(make(POSTCOPY, { "max-passes": 2 }), 3)).toEqual(["start-postcopy"]);
    const stalled = make(POSTCOPY, { "stall-timeout": 100 });
    judged(stalled, 1);
    expect(judged(stalled, 2, 200)).toEqual(["start-postcopy"]);
    const late = make(POSTCOPY, { "migration-deadline": 100 });
    step(late, { _tag: "Tick" }, 150);
    expect(statusOf(late)).toBe("active");
    expect(judged(late, 2, 160)).toEqual(["start-postcopy"]);
  });
  it("not without the capability: then it gives up as ever, and not where a switchover fits", () => {
    const migration = make({}, { "max-passes": 2, "postcopy-after-rounds": 1 });
    expect(judged(migration, 3)).toEqual([]);
    expect(migration.failure?.code).toBe("pass-limit");
    const report = source("precopy", { verdict: pass(9, 0) });
    expect(
      verdicts(step(make(POSTCOPY, { "postcopy-after-rounds": 1 }), { _tag: "SourceReported", report }, 10)),
    ).toEqual(["switch-over"]);
  });
});

const inPostcopy = (): Migration => {
  const migration = make(POSTCOPY);
  step(migration, { _tag: "SourceReported", report: source("postcopy", { downtime: 30 }) }, 10);
  step(migration, { _tag: "DestinationReported", report: destination("postcopy", { postcopy: info() }) }, 20);
  return migration;
};
const words = (effects: ReadonlyArray<MigrationEffect>): string[] =>
  effects.flatMap((effect) =>
    effect._tag === "ToDestination" && (effect.command._tag === "Pause" || effect.command._tag === "Recover")
      ? [effect.command._tag]
      : [],
  );

describe("a migration in postcopy", () => {
  it("says what is at stake, and QEMU's status for how it goes", () => {
    const migration = inPostcopy();
    expect(infoOf(migration, 30)).toMatchObject({
      status: "postcopy-active",
      note: "the guest runs at node b, and 5 MiB of its memory are at node a only: if either is lost, so is the guest",
      "postcopy-requests": 3,
    });
    const paused = info({ state: "paused", reason: "nobody answers" });
    step(migration, { _tag: "DestinationReported", report: destination("postcopy", { postcopy: paused }) }, 40);
    expect(infoOf(migration, 50)).toMatchObject({
      status: "postcopy-paused",
      note: expect.stringContaining("nobody answers"),
    });
    expect(infoOf(migration, 9000).note).toContain("nobody answers");
  });
  it("cannot be cancelled, nor be lost by silence, nor by a source that has forgotten it", () => {
    const migration = inPostcopy();
    step(migration, { _tag: "Cancel" }, 30);
    for (let now = 1000; now < 300_000; now += 1000) step(migration, { _tag: "Tick" }, now);
    const forgot = source("unknown", { incarnation: "00000000000000cc" as never, attempt: 0, epoch: 0 });
    step(migration, { _tag: "SourceReported", report: forgot }, 300_000);
    step(migration, { _tag: "DestinationReported", report: destination("unknown", { epoch: 0 as never }) }, 300_001);
    expect(migration.phase._tag).toBe("Postcopy");
  });
  it("completes by the source's word, and by the destination's where the source is another process", () => {
    for (const event of [
      { _tag: "SourceReported", report: source("completed", { downtime: 30 }) },
      { _tag: "DestinationReported", report: destination("running") },
    ] as const) {
      const migration = inPostcopy();
      step(migration, event, 60);
      expect(migration.phase).toEqual({ _tag: "Ending", status: "completed" });
    }
  });
  it("fails only by the destination's word: what the source has lost may have come before", () => {
    const lost = {
      code: "postcopy-source-lost",
      actor: "ram-sender",
      side: "source",
      step: "s",
      reason: "gone",
    } as const;
    const migration = inPostcopy();
    step(migration, { _tag: "SourceReported", report: source("failed", { failure: lost }) }, 30);
    expect(migration.phase._tag).toBe("Postcopy");
    expect(infoOf(migration, 40).note).toContain("gone");
    step(migration, { _tag: "DestinationReported", report: destination("failed", { failure: lost }) }, 50);
    expect(migration.phase).toEqual({ _tag: "Ending", status: "failed" });
  });
  it("is paused and recovered by words that are said again until they have arrived", () => {
    const migration = inPostcopy();
    expect(words(step(migration, { _tag: "SayToFetching", word: "Pause" }, 30))).toEqual(["Pause"]);
    const report = destination("postcopy", { postcopy: info(), word: 0 });
    expect(words(step(migration, { _tag: "DestinationReported", report }, 40))).toEqual(["Pause"]);
    const heard = destination("postcopy", { postcopy: info(), word: 1 });
    expect(words(step(migration, { _tag: "DestinationReported", report: heard }, 50))).toEqual([]);
    expect(words(step(migration, { _tag: "SayToFetching", word: "Recover" }, 60))).toEqual(["Recover"]);
  });
  it("tells the destination of changed parameters until its report shows them", () => {
    const migration = inPostcopy();
    const tuned = (effects: ReadonlyArray<MigrationEffect>): number[] =>
      effects.flatMap((effect) =>
        effect._tag === "ToDestination" && effect.command._tag === "Tune"
          ? [effect.command.parameters["max-postcopy-bandwidth"]]
          : [],
      );
    const parameters = { ...PARAMETER_DEFAULTS, "max-postcopy-bandwidth": 5 };
    expect(tuned(step(migration, { _tag: "Tune", parameters }, 30))).toEqual([5]);
    const report = destination("postcopy", { postcopy: info() });
    expect(tuned(step(migration, { _tag: "DestinationReported", report }, 40))).toEqual([5]);
    // A restarted loader has those of the beginning.
    const heard = { ...report, "parameters-revision": 1 };
    expect(tuned(step(migration, { _tag: "DestinationReported", report: heard }, 50))).toEqual([]);
    expect(tuned(step(migration, { _tag: "DestinationReported", report: { ...report, life: 1 } }, 60))).toEqual([5]);
  });
  it("is taken over as what it is, with the operator's last word", () => {
    const migration = inPostcopy();
    step(migration, { _tag: "SayToFetching", word: "Pause" }, 30);
    const saved = { ...savedOf(migration, 40), term: 2, owner: "d".repeat(16) };
    const heir = adopt({ saved, revision: 9 }, 50);
    expect(heir.phase._tag).toBe("Postcopy");
    const report = destination("postcopy", { postcopy: info(), term: 2 });
    expect(words(step(heir, { _tag: "DestinationReported", report }, 60))).toEqual(["Pause"]);
  });
});
