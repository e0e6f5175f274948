import {
  DestinationCommand,
  DestinationPhase,
  type DestinationReport,
  FENCE_OP_PREFIX,
  json,
  MigrationInfo,
  type Offer,
  type OwnershipEntry,
  type OwnershipRecord,
  PARAMETER_DEFAULTS,
  proposeCapabilities,
  SourceCommand,
  SourcePhase,
  type SourceReport,
} from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { infoOf, statusOf } from "./info.ts";
import { makeMigration, step } from "./migration.ts";
import type { Migration, MigrationEffect, MigrationEventIn, Phase } from "./migration-state.ts";

const MIGRATION = "0123456789abcdef";
const START = 1000;
const ATTEMPTS_MAX = 5;
const FAILURE = { code: "guest-failed", actor: "ram-sender", step: "save", reason: "it burnt" } as const;
const offer: Offer = {
  version: 1,
  driver: "builtin",
  machine: "m",
  hypervisor: "h",
  running: true,
  blocks: [{ name: "ram0", "length-bytes": 8192, "page-size": 4096 }],
};
const make = (phase: Phase = { _tag: "Claiming" }): Migration =>
  makeMigration({
    migration: MIGRATION,
    guest: "vm1",
    source: "a",
    destination: "b",
    parameters: PARAMETER_DEFAULTS,
    capabilities: proposeCapabilities({}) as never,
    term: 2,
    attempt: 1,
    startedAt: START,
    now: START,
    phase,
  });

const SOURCE = ["a".repeat(16), "1".repeat(16)];
const DESTINATION = ["b".repeat(16), "2".repeat(16)];
const sourceReport = (migration: Migration, change: Partial<SourceReport>): SourceReport => ({
  migration: MIGRATION as never,
  term: migration.term,
  attempt: migration.attempt,
  incarnation: SOURCE[0] as never,
  phase: "claimed",
  epoch: Math.max(1, migration.epoch),
  offer,
  ...change,
});
const destinationReport = (migration: Migration, change: Partial<DestinationReport>): DestinationReport => ({
  migration: MIGRATION as never,
  term: migration.term,
  incarnation: DESTINATION[0] as never,
  life: 0,
  phase: "ready",
  epoch: migration.epoch,
  round: 0,
  "dropped-packets": 0,
  ...change,
});
const entryOf = (
  change: Partial<OwnershipRecord> & { readonly state: OwnershipRecord["state"] },
  revision = 5,
): OwnershipEntry => ({
  record: {
    epoch: 1,
    op: "x",
    migration: MIGRATION,
    node: "a",
    open: true,
    wasRunning: true,
    ...change,
  } as OwnershipRecord,
  revision,
});
const verdict = (remaining: number, round = 1): SourceReport["verdict"] => ({
  round,
  remaining,
  bandwidth: 1e9,
  unverified: 0,
  "verify-bandwidth": 0,
  "sync-ms": 1,
  running: true,
});

/** Watches a migration from outside. */
class Watch {
  readonly migration: Migration;
  now = START;
  ended: string | null = null;
  /** The source, or the record, has said that the guest is at the destination. */
  handedOver = false;
  readonly toSource = json(SourceCommand);
  readonly toDestination = json(DestinationCommand);
  readonly info = json(MigrationInfo);

  constructor(phase?: Phase) {
    this.migration = make(phase);
  }

  happen(event: MigrationEventIn): ReadonlyArray<MigrationEffect> {
    const { migration } = this;
    if (event._tag === "SourceReported" && event.report.phase === "completed") this.handedOver = true;
    if (event._tag === "RecordRead" && event.entry !== null && event.entry !== "Unknown")
      if (event.entry.record.state === "destination") this.handedOver = true;
    const over = this.ended !== null;
    const effects = step(migration, event, this.now);
    for (const effect of effects) {
      if (over && (effect._tag !== "ToSource" || effect.command._tag !== "Abort"))
        throw new Error(`${effect._tag} after the end, upon ${event._tag}`);
      if (effect._tag === "ToSource") this.said(this.toSource, effect.command);
      if (effect._tag === "ToDestination") this.said(this.toDestination, effect.command);
      if (effect._tag === "WakeAt") expect(effect.at).toBeGreaterThan(this.now - 1);
      if (effect._tag === "WriteRecord") {
        const { record } = effect;
        // A coordinator only ever gives the guest back to its source, under a higher epoch.
        expect(record).toMatchObject({ state: "source", open: true, op: expect.stringMatching(`^${FENCE_OP_PREFIX}`) });
        expect(record.epoch).toBeGreaterThan(1);
      }
    }
    this.check(effects);
    return effects;
  }

  said<A>(codec: { encode: (value: A) => Uint8Array; decode: (bytes: Uint8Array) => unknown }, command: A): void {
    expect(codec.decode(codec.encode(command))).toEqual(command);
  }

  check(effects: ReadonlyArray<MigrationEffect>): void {
    const { migration } = this;
    const { phase } = migration;
    if (migration.attempt > ATTEMPTS_MAX) throw new Error(`attempt ${migration.attempt}`);
    if (phase._tag !== "Ended") {
      if (this.ended !== null) throw new Error(`${phase._tag} after the end`);
      expect(effects.some((effect) => effect._tag === "WakeAt")).toBe(true);
      return;
    }
    if (this.ended === null) {
      this.ended = phase.status;
      expect(effects).toContainEqual({ _tag: "Save" });
      expect(effects).toContainEqual({ _tag: "Publish", event: "MIGRATION" });
      const info = infoOf(migration, this.now);
      expect(this.info.decode(this.info.encode(info))).toEqual(info);
      // R10: with a reason, or completed and without.
      expect(info.error === undefined).toBe(phase.status === "completed");
      if (phase.status === "completed" && !this.handedOver) throw new Error("completed, and nobody said so");
    }
    if (phase.status !== this.ended) throw new Error(`${this.ended}, then ${phase.status}`);
    expect(statusOf(migration)).toBe(this.ended);
  }

  /** What comes when all goes well. */
  helpful(): MigrationEventIn[] {
    const { migration } = this;
    const source = (change: Partial<SourceReport>): MigrationEventIn => ({
      _tag: "SourceReported",
      report: sourceReport(migration, change),
    });
    switch (migration.phase._tag) {
      case "Claiming":
        return [source({ phase: "claimed", epoch: migration.epoch + migration.attempt + 1 })];
      case "Preparing":
        return [{ _tag: "DestinationReported", report: destinationReport(migration, { phase: "ready" }) }];
      case "Starting":
        return [source({ phase: "precopy" })];
      case "Active":
        return [
          source({ phase: "precopy", verdict: verdict(1e10)! }),
          source({ phase: "precopy", verdict: verdict(0)! }),
          source({ phase: "stopping" }),
        ];
      case "Switching":
        return [source({ phase: "switching" }), source({ phase: "completed" })];
      case "Aborting":
        return [source({ phase: "taking-back" }), source({ phase: "failed", failure: FAILURE })];
      case "Adopting":
        return [source({ phase: "precopy", epoch: 4 }), source({ phase: "switching", epoch: 4 })];
      case "Reckoning": {
        const { settlement } = migration.phase;
        if (settlement === null)
          return [
            { _tag: "RecordRead", entry: entryOf({ state: "source", epoch: Math.max(1, migration.epoch) as never }) },
          ];
        return [{ _tag: "RecordWritten", op: settlement.record.op, outcome: { revision: settlement.revision + 1 } }];
      }
      case "Ended":
        return [];
    }
  }

  /** True or not, in time or not. */
  anyTime(choice: number): MigrationEventIn[] {
    const { migration } = this;
    const of = <A>(list: ReadonlyArray<A>, at: number): A => list[at % list.length]!;
    const phase = of(SourcePhase.literals, choice);
    const epoch = of([Math.max(1, migration.epoch), migration.epoch + 1], choice >> 3);
    const op = migration.phase._tag === "Reckoning" ? (migration.phase.settlement?.record.op ?? "none") : "none";
    const states = ["source", "switching", "destination"] as const;
    const switching = {
      destination: "b",
      incarnation: DESTINATION[0],
      manifest: { round: 1, items: 0, deviceBytes: 0 },
    };
    return [
      { _tag: "Tick" },
      { _tag: "Tick" },
      { _tag: "Cancel" },
      { _tag: "Continue" },
      { _tag: "Tune", parameters: { ...PARAMETER_DEFAULTS, "downtime-limit": 77 } },
      {
        _tag: "SourceReported",
        report: sourceReport(migration, {
          phase,
          epoch,
          attempt: of([migration.attempt, migration.attempt, migration.attempt - 1, 0], choice >> 4),
          incarnation: of(SOURCE, choice >> 5) as never,
          term: of([migration.term, migration.term - 1, migration.term + 1], choice >> 6),
          ...(choice % 3 === 0 ? { failure: FAILURE } : {}),
          ...(choice % 5 === 0 ? { verdict: verdict(choice * 1e6, choice)! } : {}),
          ...(choice % 7 === 0 ? { failure: { ...FAILURE, code: "fenced" } } : {}),
        }),
      },
      {
        _tag: "DestinationReported",
        report: destinationReport(migration, {
          phase: of(DestinationPhase.literals, choice),
          epoch,
          incarnation: of(DESTINATION, choice >> 5) as never,
          ...(choice % 2 === 0 ? { failure: FAILURE } : {}),
        }),
      },
      { _tag: "RecordRead", entry: "Unknown" },
      { _tag: "RecordRead", entry: null },
      {
        _tag: "RecordRead",
        entry: entryOf(
          {
            state: of(states, choice),
            epoch: epoch as never,
            open: choice % 2 === 0,
            op: of(["x", op], choice >> 2),
            migration: of([MIGRATION, MIGRATION, "f".repeat(16)], choice >> 4) as never,
            ...(switching as object),
          },
          1 + (choice % 9),
        ),
      },
      { _tag: "RecordWritten", op, outcome: "Unknown" },
      { _tag: "RecordWritten", op, outcome: "Lost" },
      { _tag: "RecordWritten", op: "nobody's", outcome: { revision: 7 } },
    ];
  }
}

const fate = fc.record({
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
      fc.property(fate, ({ helpful, adopting, events }) => {
        const watch = new Watch(adopting === 0 ? { _tag: "Adopting" } : { _tag: "Claiming" });
        for (const [kind, choice, ms] of events) {
          watch.now += ms;
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
    expect([...phases].sort()).toEqual(
      ["Aborting", "Active", "Adopting", "Claiming", "Ended", "Preparing", "Reckoning", "Starting", "Switching"].sort(),
    );
    expect([...endings].sort()).toEqual(["cancelled", "completed", "failed", "none"]);
  });
});

const until = (watch: Watch, phase: Phase["_tag"]): Watch => {
  for (let events = 0; watch.migration.phase._tag !== phase; events++) {
    if (events > 20) throw new Error(`it stays in ${watch.migration.phase._tag}`);
    watch.happen(watch.helpful().at(-1)!);
  }
  return watch;
};
const commandsIn = (effects: ReadonlyArray<MigrationEffect>): string[] =>
  effects.flatMap((effect) =>
    effect._tag === "ToSource" || effect._tag === "ToDestination" ? [effect.command._tag] : [],
  );

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
      watch.happen(watch.helpful()[0]!);
    }
    expect(watch.ended).toBe("failed");
    expect(watch.migration.attempt).toBe(ATTEMPTS_MAX);
  });

  it("whose record decides how it ended is not turned by a destination that says it has failed, however often", () => {
    const watch = until(new Watch(), "Switching");
    watch.happen({ _tag: "Cancel" });
    watch.now += 15_000;
    watch.happen({ _tag: "Tick" });
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

  it("is not tuned after its end", () => {
    const watch = until(new Watch(), "Ended");
    expect(watch.happen({ _tag: "Tune", parameters: PARAMETER_DEFAULTS })).toEqual([]);
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
    watch.happen({ _tag: "Tick" });
    expect(watch.migration.failure?.code).toBe("migration-deadline");
  });
});

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
});
