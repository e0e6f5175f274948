import {
  type DestinationReport,
  type OwnershipRecord,
  PARAMETER_DEFAULTS,
  type PassReport,
  type PostcopyInfo,
  proposeCapabilities,
  type SourceReport,
} from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { adopt } from "./adoption.ts";
import { obstacleToGivingUp } from "./giving-up.ts";
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
  it("that both sides have forgotten ends as its record says", () => {
    const closed = {
      ...{ state: "destination", epoch: EPOCH, op: "o", migration: "0123456789abcdef", node: "b" },
      open: false,
    };
    for (const [lost, status] of [
      [{}, "completed"],
      [{ lost: "gone" }, "failed"],
    ] as const) {
      const migration = inPostcopy();
      let asked = 0;
      const forgot = destination("unknown", { epoch: 0 as never });
      for (let now = 250; now < 20_000 && asked === 0; now += 250) {
        step(migration, { _tag: "DestinationReported", report: forgot }, now);
        asked += step(migration, { _tag: "Tick" }, now).filter(({ _tag }) => _tag === "ReadRecord").length;
        if (asked > 0) expect(now).toBeGreaterThanOrEqual(15_000);
      }
      const record = { ...closed, ...lost, wasRunning: true, incarnation: "0".repeat(16) } as OwnershipRecord;
      step(migration, { _tag: "RecordRead", entry: { record, revision: 9 } }, migration.lastStepAt + 1);
      expect(migration.phase).toEqual({ _tag: "Ending", status });
    }
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

describe("a postcopy that an operator gives up", () => {
  const LOST = info({ state: "recover", reason: "the source does not answer" });
  const record = (of: Record<string, unknown> = {}): OwnershipRecord =>
    ({
      ...{ state: "destination", epoch: EPOCH, op: "loader's", migration: "0123456789abcdef", node: "b", open: true },
      ...{ wasRunning: true, incarnation: "00000000000000bb", postcopy: true },
      ...of,
    }) as OwnershipRecord;
  const cutOff = (): Migration => {
    const migration = inPostcopy();
    step(migration, { _tag: "DestinationReported", report: destination("postcopy", { postcopy: LOST }) }, 40);
    return migration;
  };
  const saved = (migration: Migration, save: number): MigrationEventIn => ({
    ...{ _tag: "SaveAnswered", save, outcome: { revision: migration.tenure.revision + 1 } },
  });
  /** A gap between two steps would be a coordinator that stood still. */
  const soon = (migration: Migration): number => migration.lastStepAt + 260;
  /** Answers reads and saves for a while, until a write of the record is asked for; null: none is. */
  const written = (migration: Migration, event: MigrationEventIn, entry: OwnershipRecord) => {
    const { pending } = migration.tenure;
    const events = pending === null ? [event] : [saved(migration, pending), event];
    for (let steps = 0; steps < 40; steps++)
      for (const effect of step(migration, events.shift() ?? { _tag: "Tick" }, soon(migration))) {
        if (effect._tag === "WriteRecord") return effect;
        if (effect._tag === "Save") events.push(saved(migration, effect.save));
        if (effect._tag === "ReadRecord") events.push({ _tag: "RecordRead", entry: { record: entry, revision: 9 } });
      }
    return null;
  };
  const giveUp = (migration: Migration, entry = record()) => written(migration, { _tag: "GiveUp" }, entry);
  const answered = (migration: Migration, op: string, outcome: "Unknown" | { revision: number }): void =>
    void step(migration, { _tag: "RecordWritten", op, outcome }, soon(migration));
  const heard = (migration: Migration, report: DestinationReport): void =>
    void step(migration, { _tag: "DestinationReported", report }, soon(migration));

  it("must have no other way left: not while pages come, nor while his own word holds them back", () => {
    expect(obstacleToGivingUp(make(POSTCOPY), 10)).toContain("cancel");
    const comes = inPostcopy();
    expect(obstacleToGivingUp(comes, 30)).toContain("pages of the guest come");
    step(comes, { _tag: "GiveUp" }, 30);
    expect(comes.givingUp).toBeNull();
    const paused = cutOff();
    step(paused, { _tag: "SayToFetching", word: "Pause" }, 45);
    expect(obstacleToGivingUp(paused, 50)).toContain("godwit recover");
    expect(obstacleToGivingUp(cutOff(), 50)).toBeNull();
    // A host that is not heard may be the one that is lost.
    expect(obstacleToGivingUp(comes, 20 + 14_999)).not.toBeNull();
    expect(obstacleToGivingUp(comes, 20 + 15_000)).toBeNull();
  });
  it("has that written into the record, by whoever is the owner still, and ends by the destination's word", () => {
    const migration = cutOff();
    const write = giveUp(migration)!;
    expect(write).toMatchObject({ revision: 9, record: { state: "destination", open: true, epoch: EPOCH } });
    expect(write.record).toMatchObject({ lost: expect.stringContaining("given up by an operator") });
    const saves = migration.tenure.saves;
    answered(migration, write.record.op, "Unknown");
    // Written again only upon another save.
    const again = written(migration, { _tag: "Tick" }, record());
    expect(again?.record.op).toBe(write.record.op);
    expect(migration.tenure.saves).toBeGreaterThan(saves);
    answered(migration, write.record.op, { revision: 10 });
    expect(migration.phase._tag).toBe("Postcopy");
    const gone = { code: "postcopy-source-lost", actor: "loader", step: "s", reason: "r" } as const;
    heard(migration, destination("failed", { failure: gone }));
    expect(migration).toMatchObject({ phase: { status: "failed" }, failure: { code: "postcopy-given-up" } });
  });
  it("is not waited for by a destination that is gone as well, and has come to its end after all where that has all pages", () => {
    const won = (): Migration => {
      const migration = cutOff();
      const { record: told } = giveUp(migration)!;
      answered(migration, told.op, { revision: 10 });
      return migration;
    };
    const silent = won();
    while (soon(silent) < 40 + 15_000) step(silent, { _tag: "Tick" }, soon(silent));
    expect(silent.phase._tag).toBe("Postcopy");
    step(silent, { _tag: "Tick" }, soon(silent));
    expect(silent.phase).toEqual({ _tag: "Ending", status: "failed" });
    const whole = won();
    for (const until = soon(whole) + 2000; soon(whole) < until; ) step(whole, { _tag: "Tick" }, soon(whole));
    heard(whole, destination("running"));
    expect(whole.phase).toEqual({ _tag: "Ending", status: "completed" });
  });
  it("is given up by a successor, too; what the record says already is not written again", () => {
    const migration = cutOff();
    giveUp(migration);
    const heir = adopt({ saved: { ...savedOf(migration, 60), term: 2, owner: "d".repeat(16) }, revision: 9 }, 70);
    expect(written(heir, { _tag: "Tick" }, record({ lost: "by the predecessor", givenUp: true }))).toBeNull();
    expect(heir).toMatchObject({ givingUp: { isTold: true }, failure: { reason: "by the predecessor" } });
    const over = cutOff();
    expect(giveUp(over, record({ open: false }))).toBeNull();
    expect(over.phase).toMatchObject({ status: "completed" });
    const taken = cutOff();
    expect(giveUp(taken, record({ epoch: EPOCH + 1, node: "c" }))).toBeNull();
    expect(taken.phase).toMatchObject({ status: "failed" });
  });
});
