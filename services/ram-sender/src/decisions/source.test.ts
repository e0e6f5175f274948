import {
  FENCE_OP_PREFIX,
  json,
  type Offer,
  type OwnershipEntry,
  type OwnershipRecord,
  PARAMETER_DEFAULTS,
  proposeCapabilities,
  SourceReport,
} from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Channels from "./channels.ts";
import { reportOf } from "./report.ts";
import { begin, makeSource, step } from "./source.ts";
import type { LocalStep, Source, SourceEffect, SourceEvent } from "./source-state.ts";

const MIGRATION = "0123456789abcdef";
const DESTINATION = "d".repeat(16);
const PAGES = 300;
const FAILURE = { code: "cancelled", actor: "coordinator", step: "cancel", reason: "by request" } as const;

const make = (capabilities: Record<string, boolean> = {}): Source =>
  makeSource({
    migration: MIGRATION,
    guest: "vm1",
    node: "a",
    incarnation: "a".repeat(16),
    term: 1,
    attempt: 1,
    parameters: { ...PARAMETER_DEFAULTS, "max-bandwidth": 0 },
    capabilities: proposeCapabilities(capabilities) as never,
    itemPagesMax: 64,
    now: 1000,
  });
const offer: Offer = {
  version: 1,
  driver: "builtin",
  machine: "m",
  hypervisor: "h",
  running: true,
  blocks: [{ name: "ram0", "length-bytes": PAGES * 4096, "page-size": 4096 }],
};
const recordOf = (
  source: Source,
  change: Partial<OwnershipRecord> & { state: OwnershipRecord["state"] },
): OwnershipRecord =>
  ({
    epoch: source.epoch,
    op: "other",
    migration: MIGRATION,
    node: "b",
    open: true,
    wasRunning: true,
    incarnation: DESTINATION,
    ...(change.state === "switching" ? { destination: "b", manifest: { round: 1, items: 0, deviceBytes: 0 } } : {}),
    ...change,
  }) as OwnershipRecord;

/** Watches a source from outside, and says which events may come; knows nothing of its phases but what they emit. */
class Watch {
  readonly source: Source;
  now = 1000;
  /** A write of `switching` is out, and no later write of `source` is known to have won. */
  mayBeSwitching = false;
  /** Operation ids of `source` records written since. */
  takeBacks = new Set<string>();
  readonly unanswered = new Map<LocalStep, number>();
  /** The record was seen to say that the destination has the guest. */
  seenHandedOver = false;
  outcome: string | null = null;
  reported = "";
  readonly codec = json(SourceReport);

  constructor(source: Source) {
    this.source = source;
    this.effects(begin, { _tag: "Tick" });
  }

  happen(event: SourceEvent): void {
    const { source } = this;
    this.answered(event);
    if (event._tag === "RecordRead" && event.entry !== null && event.entry !== "Unknown") this.read(event.entry);
    if (event._tag === "RecordWritten" && typeof event.outcome === "object" && this.takeBacks.has(event.op))
      this.mayBeSwitching = false;
    this.effects(step(source, event, this.now), event);
    this.check();
  }

  read({ record }: OwnershipEntry): void {
    if (this.takeBacks.has(record.op)) this.mayBeSwitching = false;
    if (record.state === "destination" && record.epoch === this.source.epoch) this.seenHandedOver = true;
  }

  answered(event: SourceEvent): void {
    const of: Partial<Record<SourceEvent["_tag"], LocalStep>> = {
      Described: "describe",
      TrackerOpened: "open-tracker",
      Synced: "sync",
      Paused: "pause",
      DeviceStateSaved: "save-device-state",
      Resumed: "resume",
      Discarded: "discard",
    };
    const local = event._tag === "LocalFailed" ? event.step : of[event._tag];
    if (local !== undefined) this.unanswered.delete(local);
  }

  effects(effects: ReadonlyArray<SourceEffect>, cause: SourceEvent): void {
    const over = this.outcome !== null;
    for (const effect of effects) {
      if (over && effect._tag !== "Report") throw new Error(`${effect._tag} after the end, upon ${cause._tag}`);
      switch (effect._tag) {
        case "WriteRecord": {
          if (effect.record.state === "switching") {
            this.mayBeSwitching = true;
            this.takeBacks.clear();
          } else this.takeBacks.add(effect.record.op);
          expect(effect.record.migration).toBe(MIGRATION);
          break;
        }
        case "Local": {
          if (effect.step === "resume") {
            if (this.mayBeSwitching) throw new Error("the guest goes on while the record may be `switching`");
            if (this.seenHandedOver) throw new Error("the guest goes on at the source after it was handed over");
          }
          for (const other of this.unanswered.keys()) {
            const both = `${other} then ${effect.step}`;
            // The tracker is closed under a step that uses it; everything else answers before the next begins.
            if (both !== "sync then pause" && both !== "open-tracker then resume" && effect.step !== "discard")
              throw new Error(`${both}, and the first is unanswered`);
          }
          this.unanswered.set(effect.step, effect.round);
          break;
        }
        case "Dispatch": {
          const { item, channel, channelEpoch, worker } = effect;
          expect(this.source.channels.workers.has(worker)).toBe(true);
          expect(this.source.ledger.outstanding.get(item.item)).toBe(item);
          expect(item).toMatchObject({ channel, channelEpoch });
          break;
        }
        case "WakeAt":
          expect(effect.at).toBeGreaterThanOrEqual(this.now);
          break;
      }
    }
    if (this.outcome === null && this.source.phase._tag !== "Ended")
      expect(effects === begin || effects.some((effect) => effect._tag === "WakeAt")).toBe(true);
  }

  check(): void {
    const { source } = this;
    for (const lane of source.channels.lanes)
      if (lane.inFlightBytes < 0) throw new Error("less than nothing in flight");
    const inFlight = source.channels.lanes.reduce((sum, lane) => sum + lane.inFlightBytes, 0);
    if (inFlight > Channels.MIGRATION_WINDOW_BYTES) throw new Error(`${inFlight} bytes in flight`);
    if (source.phase._tag === "Ended") {
      this.outcome ??= source.phase.outcome;
      if (source.phase.outcome !== this.outcome) throw new Error(`ended ${this.outcome}, then ${source.phase.outcome}`);
      if (this.outcome === "completed" && !this.seenHandedOver) throw new Error("completed, and nobody said so");
    } else if (this.outcome !== null) throw new Error(`${source.phase._tag} after the end`);
    if (source.phase._tag === this.reported) return;
    this.reported = source.phase._tag;
    const report = reportOf(source, this.now);
    expect(this.codec.decode(this.codec.encode(report))).toEqual(report);
    // R10: an ending has its reason, and a completed one has none.
    if (report.phase === "failed") expect(report.failure).toBeDefined();
    if (report.phase === "completed") expect(report.failure).toBeUndefined();
  }

  /** What comes when all goes well. */
  helpful(): SourceEvent[] {
    const { source } = this;
    const { phase, epoch } = source;
    const { round } = source.ledger;
    const events: SourceEvent[] = [];
    if ("settlement" in phase && phase.settlement !== null) {
      const { record, revision } = phase.settlement;
      events.push({ _tag: "RecordWritten", op: record.op, outcome: { revision: revision + 1 } });
    } else if (phase._tag === "Claiming" && source.offer !== null) {
      events.push({ _tag: "RecordRead", op: "claim", entry: null });
    }
    for (const [local, of] of this.unanswered) {
      if (local === "describe") events.push({ _tag: "Described", offer, running: true });
      if (local === "open-tracker") events.push({ _tag: "TrackerOpened", kind: "content" });
      if (local === "sync") {
        events.push({ _tag: "Found", round: of, block: 0, runs: [0, 10, 100, 200] });
        events.push({ _tag: "Synced", round: of, dirtyPages: 210, syncMs: 3 });
      }
      if (local === "pause") events.push({ _tag: "Paused" });
      if (local === "save-device-state") events.push({ _tag: "DeviceStateSaved", bytes: 300_000 });
      if (local === "resume") events.push({ _tag: "Resumed" });
      if (local === "discard") events.push({ _tag: "Discarded" });
    }
    if (source.channels.workers.size === 0) events.push({ _tag: "WorkerUp", worker: "w0" });
    if (phase._tag === "Claimed") events.push({ _tag: "Start", epoch, destination: "b", incarnation: DESTINATION });
    if (phase._tag === "Precopy" && phase.verdict === "asked") {
      events.push({ _tag: "Verdict", epoch, round, verdict: "iterate" });
      events.push({ _tag: "Verdict", epoch, round, verdict: "switch-over" });
    }
    if (phase._tag === "PreSwitchover") events.push({ _tag: "Continue" });
    if (phase._tag === "AwaitingCommit") {
      const entry = { record: recordOf(source, { state: "destination" }), revision: source.revision + 1 };
      events.push({ _tag: "DestinationRunning", epoch, incarnation: DESTINATION });
      events.push({ _tag: "RecordRead", op: "confirm", entry });
    }
    const items = Uint32Array.from(source.ledger.outstanding.keys());
    const applied = { epoch, round, incarnation: DESTINATION, normalPages: 1, wireBytes: 100 };
    if (items.length > 0) {
      events.push({ _tag: "Applied", ...applied, items });
      events.push({ _tag: "Applied", ...applied, items: items.subarray(0, 1) });
    }
    return events;
  }

  /** What comes when something goes wrong with what was asked. */
  harmful(): SourceEvent[] {
    const { source } = this;
    const { phase, epoch } = source;
    const events: SourceEvent[] = [];
    if ("settlement" in phase && phase.settlement !== null) {
      const { record, revision } = phase.settlement;
      const { op } = record;
      const read = (entry: OwnershipEntry | null | "Unknown"): SourceEvent => ({ _tag: "RecordRead", op, entry });
      const other = (change: Partial<OwnershipRecord> & { state: OwnershipRecord["state"] }, at: number): SourceEvent =>
        read({ record: recordOf(source, change), revision: at });
      const next = (epoch + 1) as OwnershipRecord["epoch"];
      events.push(
        { _tag: "RecordWritten", op, outcome: "Unknown" },
        { _tag: "RecordWritten", op, outcome: "Lost" },
        read({ record, revision: revision + 1 }),
        read("Unknown"),
        read(null),
        other({ state: "source", node: "a" }, revision),
        other({ state: "source", node: "a", epoch: next }, revision + 2),
        other({ state: "source", node: "a", epoch: next, op: `${FENCE_OP_PREFIX}1` }, revision + 2),
        other({ state: "switching", node: "a", epoch: next }, revision + 2),
      );
      // Only a record that was `switching` can be handed over.
      if (this.mayBeSwitching) events.push(other({ state: "destination" }, revision + 2));
      else events.push(other({ state: "destination", epoch: next }, revision + 2));
    } else if (phase._tag === "Claiming") {
      const mine = recordOf(source, { state: "source", node: "a", epoch: 4 as never });
      events.push({ _tag: "RecordRead", op: "claim", entry: { record: mine, revision: 9 } });
      events.push({ _tag: "RecordRead", op: "claim", entry: "Unknown" });
    }
    for (const local of this.unanswered.keys()) events.push({ _tag: "LocalFailed", step: local, failure: FAILURE });
    const items = Uint32Array.from(source.ledger.outstanding.keys());
    if (items.length > 0) events.push({ _tag: "Refused", epoch, round: source.ledger.round, items, reason: "gone" });
    events.push({ _tag: "WorkerDown", worker: "w0" });
    return events;
  }

  /** True or not, in time or not. */
  anyTime(): SourceEvent[] {
    const { source } = this;
    const { epoch } = source;
    const { round } = source.ledger;
    const stranger = { record: recordOf(source, { state: "destination", epoch: 77 as never }), revision: 1000 };
    const steps: LocalStep[] = ["describe", "open-tracker", "sync", "pause", "save-device-state", "resume", "discard"];
    return [
      { _tag: "WorkerUp", worker: "w0" },
      { _tag: "WorkerUp", worker: "w1" },
      { _tag: "WorkerDown", worker: "w0" },
      { _tag: "WorkerDown", worker: "w1" },
      { _tag: "Tick" },
      { _tag: "Tick" },
      { _tag: "LinkRestored" },
      { _tag: "Abort", failure: FAILURE },
      { _tag: "Continue" },
      { _tag: "Tune", parameters: { ...source.parameters, "max-bandwidth": 1_000_000 } },
      { _tag: "Paused" },
      { _tag: "Resumed" },
      { _tag: "Discarded" },
      { _tag: "DeviceStateSaved", bytes: 0 },
      { _tag: "TrackerOpened", kind: "content" },
      { _tag: "Described", offer, running: false },
      { _tag: "Found", round, block: 0, runs: [0, 300] },
      { _tag: "Found", round: round + 1, block: 7, runs: [0, 300] },
      { _tag: "Synced", round: round - 1, dirtyPages: 0, syncMs: 0 },
      { _tag: "Start", epoch: epoch + 1, destination: "c", incarnation: "e".repeat(16) },
      { _tag: "Verdict", epoch: epoch + 1, round, verdict: "switch-over" },
      { _tag: "Verdict", epoch, round: round - 1, verdict: "switch-over" },
      { _tag: "RecordRead", op: "claim", entry: stranger },
      { _tag: "RecordRead", op: "confirm", entry: stranger },
      { _tag: "RecordRead", op: "confirm", entry: "Unknown" },
      { _tag: "RecordRead", op: "nobody's", entry: null },
      { _tag: "RecordWritten", op: "nobody's", outcome: { revision: 99 } },
      { _tag: "RecordWritten", op: "nobody's", outcome: "Lost" },
      { _tag: "DestinationRunning", epoch: epoch + 1, incarnation: DESTINATION },
      { _tag: "DestinationRunning", epoch, incarnation: "e".repeat(16) },
      { _tag: "DestinationFailed", epoch, incarnation: DESTINATION, failure: FAILURE },
      { _tag: "DestinationFailed", epoch: epoch - 1, incarnation: DESTINATION, failure: FAILURE },
      {
        _tag: "Applied",
        epoch,
        round,
        incarnation: "e".repeat(16),
        items: Uint32Array.of(0),
        normalPages: 1,
        wireBytes: 1,
      },
      {
        _tag: "Applied",
        epoch,
        round: round - 1,
        incarnation: DESTINATION,
        items: Uint32Array.of(0),
        normalPages: 1,
        wireBytes: 1,
      },
      {
        _tag: "Applied",
        epoch,
        round,
        incarnation: DESTINATION,
        items: Uint32Array.of(4_000_000_000),
        normalPages: 1,
        wireBytes: 1,
      },
      { _tag: "Refused", epoch, round, items: Uint32Array.of(0, 1, 2, 4_000_000_000), reason: "gone" },
      ...steps.map((local): SourceEvent => ({ _tag: "LocalFailed", step: local, failure: FAILURE })),
    ];
  }
}

/** Of ten events how many are helpful; which come next, and how many ms later. */
const fate = fc.record({
  helpful: fc.integer({ min: 5, max: 10 }),
  events: fc.array(
    fc.tuple(fc.nat(9), fc.nat(10_000), fc.oneof(fc.nat(5), fc.nat(5), fc.constantFrom(0, 50, 500, 20_000))),
    { minLength: 20, maxLength: 80, size: "max" },
  ),
});
const next = (watch: Watch, helpful: number, [kind, choice, ms]: readonly [number, number, number]): void => {
  watch.now += ms;
  const wanted = kind < helpful ? watch.helpful() : kind % 2 === 0 ? watch.harmful() : watch.anyTime();
  const candidates = wanted.length > 0 ? wanted : watch.anyTime();
  watch.happen(candidates[choice % candidates.length]!);
};

describe("a source, whatever comes in whatever order", () => {
  it("never throws, lets the guest go on only when the record cannot be `switching`, and ends once, with its reason", () => {
    const endings = new Map<string, number>();
    const phases = new Set<string>();
    fc.assert(
      fc.property(fate, fc.boolean(), ({ helpful, events }, pause) => {
        const watch = new Watch(make({ "pause-before-switchover": pause }));
        for (const event of events) {
          next(watch, helpful, event);
          phases.add(watch.source.phase._tag);
        }
        endings.set(watch.outcome ?? "none", (endings.get(watch.outcome ?? "none") ?? 0) + 1);
      }),
      { numRuns: 1000 },
    );
    // A property that never saw a phase said nothing about it.
    expect([...phases].sort()).toEqual(
      [
        ...[
          "AwaitingCommit",
          "Claimed",
          "Claiming",
          "Discarding",
          "Ended",
          "FinalSync",
          "OpeningTracker",
          "PreSwitchover",
        ],
        ...["Precopy", "Releasing", "Resuming", "SavingDeviceState", "Stopping", "Switching", "TakingBack"],
      ].sort(),
    );
    expect(endings.get("completed")).toBeGreaterThan(0);
    expect(endings.get("failed")).toBeGreaterThan(0);
  });
});

/** Lets helpful events come until `phase` is reached. */
const until = (watch: Watch, phase: Source["phase"]["_tag"]): Watch => {
  for (let events = 0; watch.source.phase._tag !== phase; events++) {
    if (events > 100) throw new Error(`it stays in ${watch.source.phase._tag}`);
    const helpful = watch.helpful().filter((event) => event._tag !== "Verdict" || event.verdict === "switch-over");
    watch.happen(helpful.at(-1)!);
  }
  return watch;
};
const effectsOf = (watch: Watch, event: SourceEvent): ReadonlyArray<SourceEffect> =>
  step(watch.source, event, watch.now);
const stepsIn = (effects: ReadonlyArray<SourceEffect>): LocalStep[] =>
  effects.flatMap((effect) => (effect._tag === "Local" ? [effect.step] : []));

describe("a source", () => {
  it("that is aborted after the guest was handed over is completed, without a reason to fail", () => {
    const watch = until(new Watch(make()), "Discarding");
    watch.happen({ _tag: "Abort", failure: FAILURE });
    watch.happen({ _tag: "Discarded" });
    watch.happen({ _tag: "LocalFailed", step: "discard", failure: FAILURE });
    const report = reportOf(watch.source, watch.now);
    expect(report).toMatchObject({ phase: "completed", downtime: expect.any(Number) });
    expect(report.failure).toBeUndefined();
  });

  it("lets a paused guest go on only once the pause was answered, whatever else fails meanwhile", () => {
    const watch = until(new Watch(make()), "Stopping");
    expect(stepsIn(effectsOf(watch, { _tag: "LocalFailed", step: "sync", failure: FAILURE }))).toEqual([]);
    expect(stepsIn(effectsOf(watch, { _tag: "Paused" }))).toEqual(["resume"]);
  });

  it("asks a guest to go on once, and again only half a second after it has refused", () => {
    const watch = until(new Watch(make()), "Stopping");
    watch.happen({ _tag: "Abort", failure: FAILURE });
    watch.happen({ _tag: "Paused" });
    for (watch.now = 1100; watch.now < 20_000; watch.now += 200)
      expect(stepsIn(effectsOf(watch, { _tag: "Tick" }))).toEqual([]);
    watch.happen({ _tag: "LocalFailed", step: "resume", failure: FAILURE });
    watch.now += 499;
    expect(stepsIn(effectsOf(watch, { _tag: "Tick" }))).toEqual([]);
    watch.now += 1;
    expect(stepsIn(effectsOf(watch, { _tag: "Tick" }))).toEqual(["resume"]);
    expect(stepsIn(effectsOf(watch, { _tag: "Tick" }))).toEqual([]);
  });

  it("whose device state is longer than any destination takes goes on at once, and says why", () => {
    const watch = until(new Watch(make()), "SavingDeviceState");
    expect(stepsIn(effectsOf(watch, { _tag: "DeviceStateSaved", bytes: 256 * 1024 ** 2 + 1 }))).toEqual(["resume"]);
    expect(watch.source.failure).toMatchObject({ code: "device-state-failed", step: "save the device state" });
    expect(watch.source.failure?.reason).toMatch(/268435457/);
    const within = until(new Watch(make()), "SavingDeviceState");
    expect(stepsIn(effectsOf(within, { _tag: "DeviceStateSaved", bytes: 256 * 1024 ** 2 }))).toEqual(["sync"]);
  });

  it("whose claim lost to another life that has handed the guest over has completed nothing itself", () => {
    const watch = new Watch(make());
    watch.happen({ _tag: "Described", offer, running: true });
    watch.happen({ _tag: "RecordRead", op: "claim", entry: null });
    const { phase } = watch.source;
    if (phase._tag !== "Claiming" || phase.settlement === null) throw new Error(phase._tag);
    const entry = {
      record: recordOf(watch.source, { state: "destination", migration: "f".repeat(16) as never }),
      revision: 9,
    };
    const effects = effectsOf(watch, { _tag: "RecordRead", op: phase.settlement.record.op, entry });
    expect(stepsIn(effects)).toEqual([]);
    expect(reportOf(watch.source, 0)).toMatchObject({ phase: "failed", failure: { code: "fenced" } });
  });

  it("describes its own guest first: a record read before that is not acted on", () => {
    const watch = new Watch(make());
    expect(effectsOf(watch, { _tag: "RecordRead", op: "claim", entry: null }).map(({ _tag }) => _tag)).toEqual([
      "WakeAt",
    ]);
  });

  it("waits to claim while a switchover of its earlier life is being taken back", () => {
    const watch = new Watch(make());
    watch.happen({ _tag: "Described", offer, running: true });
    const entry = { record: recordOf(watch.source, { state: "switching", node: "a" }), revision: 4 };
    const effects = effectsOf(watch, { _tag: "RecordRead", op: "claim", entry });
    expect(effects).toContainEqual({ _tag: "ReadRecord", op: "claim", afterMs: 50 });
  });

  it("refuses a guest whose record names another node", () => {
    const watch = new Watch(make());
    watch.happen({ _tag: "Described", offer, running: true });
    watch.happen({
      _tag: "RecordRead",
      op: "claim",
      entry: { record: recordOf(watch.source, { state: "destination" }), revision: 4 },
    });
    expect(reportOf(watch.source, 0)).toMatchObject({ phase: "failed", failure: { code: "fenced" } });
  });

  it("undoes a switchover that takes longer than its deadline, and not a ms sooner", () => {
    const watch = until(new Watch(make()), "AwaitingCommit");
    const deadline = watch.source.parameters["switchover-deadline"];
    watch.now = watch.source.marks.save + deadline - 1;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.phase._tag).toBe("AwaitingCommit");
    watch.now++;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.phase._tag).toBe("TakingBack");
    expect(watch.source.failure?.code).toBe("switchover-deadline");
  });

  it("aborted while the record is being written takes the guest back as soon as that is settled", () => {
    const watch = until(new Watch(make()), "Switching");
    watch.happen({ _tag: "Abort", failure: FAILURE });
    expect(watch.source.phase._tag).toBe("Switching");
    watch.happen(watch.helpful()[0]!);
    expect(watch.source.phase._tag).toBe("TakingBack");
    until(watch, "Ended");
    expect(reportOf(watch.source, watch.now)).toMatchObject({ phase: "failed", failure: FAILURE });
  });

  it("gives up when no worker was there for ten seconds", () => {
    const watch = until(new Watch(make()), "Precopy");
    watch.happen({ _tag: "WorkerDown", worker: "w0" });
    watch.now += 9_999;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.phase._tag).toBe("Precopy");
    watch.now++;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.failure?.code).toBe("workers-lost");
  });

  it("measures a downtime whose parts add up to it", () => {
    const watch = new Watch(make());
    for (const phase of [
      "Stopping",
      "SavingDeviceState",
      "FinalSync",
      "Switching",
      "AwaitingCommit",
      "Discarding",
    ] as const) {
      until(watch, phase);
      watch.now += 7;
    }
    const { downtime, "downtime-parts": parts } = reportOf(watch.source, watch.now);
    expect(downtime).toBeGreaterThan(0);
    expect(Object.values(parts!).reduce((sum, ms) => sum + ms, 0)).toBe(downtime);
    for (const ms of Object.values(parts!)) expect(ms).toBeGreaterThanOrEqual(0);
  });
});
