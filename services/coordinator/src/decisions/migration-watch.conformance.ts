/** A migration watched from outside, for the tests of its decisions: what must hold at every step, and what may come next. */
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
import { expect } from "vitest";
import { infoOf, statusOf } from "./info.ts";
import { makeMigration, step } from "./migration.ts";
import type { Migration, MigrationEffect, MigrationEventIn, Phase } from "./migration-state.ts";

const MIGRATION = "0123456789abcdef";
export const START = 1000;
export const ATTEMPTS_MAX = 5;
export const FAILURE = { code: "guest-failed", actor: "ram-sender", step: "save", reason: "it burnt" } as const;
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
    owner: "c".repeat(16),
    revision: 7,
    attempt: 1,
    startedAt: START,
    now: START,
    phase,
  });

export const SOURCE = ["a".repeat(16), "1".repeat(16)];
const DESTINATION = ["b".repeat(16), "2".repeat(16)];
export const sourceReport = (migration: Migration, change: Partial<SourceReport>): SourceReport => ({
  migration: MIGRATION as never,
  term: migration.term,
  attempt: migration.attempt,
  incarnation: SOURCE[0] as never,
  phase: "claimed",
  epoch: Math.max(1, migration.epoch),
  offer,
  ...change,
});
export const destinationReport = (migration: Migration, change: Partial<DestinationReport>): DestinationReport => ({
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
export const entryOf = (
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
export const verdict = (remaining: number, round = 1): SourceReport["verdict"] => ({
  round,
  remaining,
  bandwidth: 1e9,
  unverified: 0,
  "verify-bandwidth": 0,
  "sync-ms": 1,
  running: true,
});

/** Watches a migration from outside. Its migrations bucket answers at once, unless it is told to be slow. */
export class Watch {
  readonly migration: Migration;
  now = START;
  bucket: "quick" | "slow" = "quick";
  /** The newest save that was won: the answer came in the step that is checked. */
  saveWon = false;
  ended: string | null = null;
  /** The source, or the record, has said that the guest is at the destination. */
  handedOver = false;
  readonly heard = new Set<string>();
  readonly toSource = json(SourceCommand);
  readonly toDestination = json(DestinationCommand);
  readonly info = json(MigrationInfo);

  constructor(phase?: Phase) {
    this.migration = make(phase);
  }

  happen(event: MigrationEventIn): ReadonlyArray<MigrationEffect> {
    const effects = [...this.happenAlone(event)];
    for (let saves = 0; this.bucket === "quick" && this.migration.tenure.pending !== null; saves++) {
      if (saves > 5) throw new Error("it saves for ever");
      effects.push(...this.happenAlone(this.saved()));
    }
    return effects;
  }

  /** The pending save is won. */
  saved(): MigrationEventIn {
    const { pending, revision } = this.migration.tenure;
    return { _tag: "SaveAnswered", save: pending ?? 0, outcome: { revision: revision + 1 } };
  }

  happenAlone(event: MigrationEventIn): ReadonlyArray<MigrationEffect> {
    const { migration } = this;
    const doubted = migration.tenure.doubt !== null;
    this.saveWon = event._tag === "SaveAnswered" && typeof event.outcome === "object";
    if (event._tag === "SourceReported" && ["postcopy", "completed"].includes(event.report.phase))
      this.handedOver = true;
    if (event._tag === "RecordRead" && event.entry !== null && event.entry !== "Unknown")
      if (event.entry.record.state === "destination") this.handedOver = true;
    const over = this.ended !== null;
    const effects = step(migration, event, this.now);
    for (const effect of effects) {
      const command = "command" in effect ? effect.command._tag : effect._tag;
      if (over && !["Abort", "Abandon", "Conclude"].includes(command))
        throw new Error(`${command} after the end, upon ${event._tag}`);
      if (doubted && !this.saveWon && !["Save", "ReadSaved", "WakeAt", "Leave"].includes(effect._tag))
        throw new Error(`${command} in doubt, upon ${event._tag}`);
      if (effect._tag === "ToSource") this.said(this.toSource, effect.command);
      if (effect._tag === "ToDestination") this.said(this.toDestination, effect.command);
      if (effect._tag === "WakeAt" && effect.at < this.now) throw new Error("a wake in the past");
      if (effect._tag === "WriteRecord") {
        const { record } = effect;
        if (!this.saveWon) throw new Error("a fence by somebody who does not know that it is the owner");
        // A coordinator only ever gives the guest back to its source, under a higher epoch.
        expect(record).toMatchObject({ state: "source", open: true, op: expect.stringMatching(`^${FENCE_OP_PREFIX}`) });
        expect(record.epoch).toBeGreaterThan(1);
      }
    }
    this.check(effects);
    return effects;
  }

  /** Time in which nobody says anything, and this coordinator does what it does by itself. */
  pass(ms: number): void {
    for (let passed = 0; passed < ms; passed += 250) {
      this.now += 250;
      this.happen({ _tag: "Tick" });
    }
  }

  said<A>(codec: { encode: (value: A) => Uint8Array; decode: (bytes: Uint8Array) => unknown }, command: A): void {
    const bytes = codec.encode(command);
    const text = Buffer.from(bytes).toString("latin1");
    // Commands are repeated word for word: one that was looked at before is right.
    if (this.heard.has(text)) return;
    this.heard.add(text);
    expect(codec.decode(bytes)).toEqual(command);
  }

  check(effects: ReadonlyArray<MigrationEffect>): void {
    const { migration } = this;
    const { phase } = migration;
    if (migration.attempt > ATTEMPTS_MAX) throw new Error(`attempt ${migration.attempt}`);
    if (phase._tag === "Replaced") {
      expect(this.ended).toBeNull();
      expect(effects.filter(({ _tag }) => _tag !== "Leave")).toEqual([]);
      return;
    }
    if (phase._tag !== "Ended") {
      if (this.ended !== null) throw new Error(`${phase._tag} after the end`);
      if (["completed", "failed", "cancelled"].includes(statusOf(migration)))
        throw new Error(`${statusOf(migration)} is told before it is saved`);
      if (!effects.some((effect) => effect._tag === "WakeAt")) throw new Error("nobody wakes it");
      return;
    }
    if (this.ended === null) {
      this.ended = phase.status;
      expect(this.saveWon).toBe(true);
      expect(commandsIn(effects)).toEqual(["Conclude", "Conclude"]);
      expect(effects).toContainEqual({ _tag: "Publish", event: "MIGRATION" });
      const info = infoOf(migration, this.now);
      expect(this.info.decode(this.info.encode(info))).toEqual(info);
      // R10: with a reason, or completed and without.
      expect(info.error === undefined).toBe(phase.status === "completed");
      if (phase.status === "completed" && !this.handedOver) throw new Error("completed, and nobody said so");
    }
    if (phase.status !== this.ended) throw new Error(`${this.ended}, then ${phase.status}`);
    if (statusOf(migration) !== this.ended) throw new Error(`${this.ended} is told as ${statusOf(migration)}`);
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
      case "Postcopy":
        return [source({ phase: "postcopy" }), source({ phase: "completed" })];
      case "Aborting":
        return [source({ phase: "taking-back" }), source({ phase: "failed", failure: FAILURE })];
      case "Adopting":
        return [source({ phase: "precopy", epoch: 4 }), source({ phase: "switching", epoch: 4 })];
      case "Ending":
        return [this.saved()];
      case "Reckoning": {
        const { settlement } = migration.phase;
        if (settlement === null)
          return [{ _tag: "RecordRead", entry: entryOf({ state: "source", epoch: (migration.epoch + 1) as never }) }];
        return [{ _tag: "RecordWritten", op: settlement.record.op, outcome: { revision: settlement.revision + 1 } }];
      }
      case "Ended":
      case "Replaced":
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
      { _tag: "LinkChanged" },
      this.saved(),
      { _tag: "SaveAnswered", save: migration.tenure.pending ?? 0, outcome: of(["Lost", "Unknown"], choice) },
      {
        _tag: "SavedRead",
        stored: of(
          [
            "Unknown",
            null,
            { term: migration.term, revision: migration.tenure.revision + (choice % 3) },
            { term: migration.term - 1, revision: 1 },
            { term: migration.term + 1, revision: migration.tenure.revision + 1 },
          ],
          choice >> 2,
        ),
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

export const until = (watch: Watch, phase: Phase["_tag"]): Watch => {
  for (let events = 0; watch.migration.phase._tag !== phase; events++) {
    if (events > 20) throw new Error(`it stays in ${watch.migration.phase._tag}`);
    watch.happen(watch.helpful().at(-1)!);
  }
  return watch;
};
export const commandsIn = (effects: ReadonlyArray<MigrationEffect>): string[] =>
  effects.flatMap((effect) =>
    effect._tag === "ToSource" || effect._tag === "ToDestination" ? [effect.command._tag] : [],
  );
