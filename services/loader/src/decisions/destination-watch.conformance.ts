/** What must hold of a destination whatever comes, and what may come: for the tests that let it come in any order. */
import {
  DestinationReport,
  json,
  type Offer,
  type OwnershipEntry,
  type OwnershipRecord,
  PARAMETER_DEFAULTS,
  type PostcopyInfo,
} from "@godwit/protocol";
import { expect } from "vitest";
import { begin, step } from "./destination.ts";
import {
  type Destination,
  type DestinationEffect,
  type DestinationEvent,
  type LocalStep,
  makeDestination,
} from "./destination-state.ts";
import * as Fence from "./fence.ts";
import { reportOf } from "./loader.ts";

export const MIGRATION = "0123456789abcdef";
export const INCARNATION = "b".repeat(16);
export const EPOCH = 5;
export const START = 1000;
export const FAILURE = { code: "cancelled", actor: "coordinator", step: "cancel", reason: "by request" } as const;
export const GUEST_ENDED = {
  code: "guest-failed",
  actor: "loader",
  side: "destination",
  step: "watch the guest",
  reason: "its process is gone",
} as const;
export const offer: Offer = {
  version: 1,
  driver: "builtin",
  machine: "m",
  hypervisor: "h",
  running: true,
  blocks: [{ name: "ram0", "length-bytes": 64 * 4096, "page-size": 4096 }],
};
export const make = (): Destination =>
  makeDestination({
    migration: MIGRATION,
    guest: "vm1",
    node: "b",
    source: "a",
    incarnation: INCARNATION,
    epoch: EPOCH,
    authority: { term: 1, coordinator: null },
    offer,
    now: START,
  });
export const FETCHING: PostcopyInfo = {
  state: "active",
  remaining: 4096,
  transferred: 0,
  requests: 0,
  latency: { p50: 0, p90: 0, p99: 0, max: 0 },
  blocktime: 0,
  "vcpu-blocktime": [],
};
export type Change = Partial<Omit<Extract<OwnershipRecord, { state: "switching" }>, "state">> & {
  readonly state: OwnershipRecord["state"];
};
export const entryOf = (change: Change, revision: number): OwnershipEntry => ({
  record: {
    epoch: EPOCH,
    op: "source's",
    migration: MIGRATION,
    node: "a",
    open: true,
    wasRunning: true,
    destination: "b",
    incarnation: INCARNATION,
    manifest: { round: 2, items: 2, deviceBytes: 0 },
    ...change,
  } as OwnershipRecord,
  revision,
});

/** Watches a destination from outside; knows nothing of its phases but what they emit. */
export class Watch {
  readonly destination = make();
  /** The record's manifest leaves pages behind. */
  readonly isPostcopy: boolean;
  allThere = false;
  guestEnded = false;
  now = START;
  /** Operation ids of writes of `destination`, and whether one is known to have won. */
  readonly commits = new Set<string>();
  committed = false;
  readonly unanswered = new Set<LocalStep>();
  failed = false;
  reported = "";
  readonly codec = json(DestinationReport);

  constructor(isPostcopy = false) {
    this.isPostcopy = isPostcopy;
    this.effects(begin);
  }

  happen(event: DestinationEvent): void {
    const answers: Partial<Record<DestinationEvent["_tag"], LocalStep>> = {
      Prepared: "prepare",
      PagesExpected: "expect-pages",
      DeviceStateLoaded: "load-device-state",
      Resumed: "resume",
      Discarded: "discard",
    };
    const local = event._tag === "LocalFailed" ? event.step : answers[event._tag];
    if (local !== undefined && local !== "apply") this.unanswered.delete(local);
    if (event._tag === "RecordWritten" && typeof event.outcome === "object" && this.commits.has(event.op))
      this.committed = true;
    if (event._tag === "RecordRead" && event.entry !== null && event.entry !== "Unknown")
      if (this.commits.has(event.entry.record.op)) this.committed = true;
    if (event._tag === "Fetched" && event.isAllThere) this.allThere = true;
    if (event._tag === "GuestEnded") this.guestEnded = true;
    const before = this.destination.phase._tag;
    this.effects(step(this.destination, event, this.now));
    const isOver = before === "Running" || before === "Lost" || before === "Failed";
    if (isOver && this.destination.phase._tag !== before)
      throw new Error(`${this.destination.phase._tag} after the end`);
    this.check();
  }

  effects(effects: ReadonlyArray<DestinationEffect>): void {
    for (const effect of effects) {
      if (effect._tag === "WakeAt" && effect.at < this.now) throw new Error("a wake in the past");
      if (effect._tag === "WriteRecord") {
        expect(effect.record).toMatchObject({ state: "destination", epoch: EPOCH, migration: MIGRATION, node: "b" });
        expect(effect.record).toMatchObject({ incarnation: INCARNATION });
        if (effect.record.open) this.commits.add(effect.record.op);
        // Closed only when it runs here.
        else if (!this.committed) throw new Error("the record is closed before it was won");
        else if (effect.record.state === "destination" && effect.record.postcopy && !this.allThere && !this.guestEnded)
          throw new Error("the record is closed while pages are at the source only");
        expect(effect.revision).toBeGreaterThan(0);
      }
      if (effect._tag !== "Local") continue;
      if (effect.step === "resume" && !this.committed)
        throw new Error("the guest runs here, and the commit was not won");
      if (effect.step === "load-device-state" && this.destination.postcopy?.isKnown === false)
        throw new Error("the guest is loaded before it is known which of its pages are old");
      if (effect.step === "give-up-pages") continue;
      if (effect.step === "discard" && this.committed) throw new Error("a guest that was won is discarded");
      if (this.unanswered.size > 0)
        throw new Error(`${[...this.unanswered]} then ${effect.step}, and the first is unanswered`);
      this.unanswered.add(effect.step);
    }
  }

  check(): void {
    const { phase } = this.destination;
    const report = reportOf(this.destination);
    // R10: `failed` is never said of a guest that runs here, and never taken back.
    if (report.phase === "failed") this.failed = true;
    if (this.failed && report.phase !== "failed") throw new Error(`failed, then ${report.phase}`);
    if (report.phase === "running" && !this.committed) throw new Error("it is said to run, and nobody won it");
    if (phase._tag === "Failed" && this.committed) throw new Error("failed after it was won");
    if (this.reported === phase._tag) return;
    this.reported = phase._tag;
    expect(this.codec.decode(this.codec.encode(report))).toEqual(report);
    if (report.phase === "failed") expect(report.failure).toBeDefined();
  }

  /** What comes when all goes well. */
  helpful(): DestinationEvent[] {
    const { phase, promise } = this.destination;
    const events: DestinationEvent[] = [];
    for (const local of this.unanswered) {
      if (local === "prepare")
        events.push({ _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(1000)), loaded: false });
      if (local === "expect-pages") events.push({ _tag: "PagesExpected" });
      if (local === "load-device-state") events.push({ _tag: "DeviceStateLoaded" });
      if (local === "resume") events.push({ _tag: "Resumed" });
      if (local === "discard") events.push({ _tag: "Discarded" });
    }
    if (phase._tag === "Ready") {
      events.push({ _tag: "SwitchingTold", epoch: EPOCH }, { _tag: "PacketsApplied" });
      if (promise === null) events.push({ _tag: "RecordRead", op: "promise", entry: this.promiseOf() });
      else if (this.isPostcopy) events.push({ _tag: "MissingKnown", digest: 5 });
    }
    if (phase._tag === "Paging") {
      events.push({ _tag: "Fetched", info: FETCHING, isAllThere: false });
      events.push({ _tag: "Fetched", info: FETCHING, isAllThere: true });
    }
    if ("settlement" in phase) {
      const { record, revision } = phase.settlement;
      events.push({ _tag: "RecordWritten", op: record.op, outcome: { revision: revision + 1 } });
    }
    return events;
  }

  promiseOf(): OwnershipEntry {
    const manifest = { round: 2, items: 2, deviceBytes: 0, deviceDigest: 0 };
    const postcopy = this.isPostcopy ? { postcopy: { pages: 3, digest: 5 } } : {};
    return entryOf({ state: "switching", manifest: { ...manifest, ...postcopy } }, 7);
  }

  harmful(): DestinationEvent[] {
    const { phase } = this.destination;
    const events: DestinationEvent[] = [...this.unanswered].map((local) => ({
      _tag: "LocalFailed",
      step: local,
      failure: FAILURE,
    }));
    if ("settlement" in phase) {
      const { record, revision } = phase.settlement;
      const { op } = record;
      const read = (entry: OwnershipEntry | null | "Unknown"): DestinationEvent => ({ _tag: "RecordRead", op, entry });
      events.push(
        { _tag: "RecordWritten", op, outcome: "Unknown" },
        { _tag: "RecordWritten", op, outcome: "Lost" },
        read({ record, revision: revision + 1 }),
        read("Unknown"),
        read(null),
        read(entryOf({ state: "switching" }, revision)),
        read(entryOf({ state: "source" }, revision + 1)),
        read(entryOf({ state: "source", epoch: (EPOCH + 1) as never }, revision + 2)),
      );
    }
    if (phase._tag === "Ready") events.push({ _tag: "LocalFailed", step: "apply", failure: FAILURE });
    events.push({ _tag: "GuestEnded", failure: GUEST_ENDED });
    return events;
  }

  anyTime(): DestinationEvent[] {
    const promise = (entry: OwnershipEntry | null | "Unknown"): DestinationEvent => ({
      _tag: "RecordRead",
      op: "promise",
      entry,
    });
    const steps = ["prepare", "expect-pages", "load-device-state", "resume", "discard", "apply"] as const;
    return [
      { _tag: "Tick" },
      { _tag: "Tick" },
      { _tag: "Heard" },
      { _tag: "Abandon", failure: FAILURE },
      { _tag: "Concluded", failure: null },
      { _tag: "Concluded", failure: FAILURE },
      { _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(1000)), loaded: false },
      { _tag: "MissingKnown", digest: 6 },
      { _tag: "PagesExpected" },
      { _tag: "PauseFetching", word: 1 },
      { _tag: "RecoverFetching", word: 2 },
      { _tag: "Tune", parameters: PARAMETER_DEFAULTS, revision: 1 },
      { _tag: "Concluded", failure: { ...FAILURE, code: "postcopy-source-lost" } },
      { _tag: "DeviceStateLoaded" },
      { _tag: "Resumed" },
      { _tag: "Discarded" },
      { _tag: "PacketsApplied" },
      { _tag: "SwitchingTold", epoch: EPOCH },
      { _tag: "SwitchingTold", epoch: EPOCH + 1 },
      promise(null),
      promise("Unknown"),
      promise(entryOf({ state: "source" }, 3)),
      promise(entryOf({ state: "switching", epoch: (EPOCH - 1) as never }, 3)),
      promise(entryOf({ state: "switching", incarnation: "c".repeat(16) as never }, 3)),
      promise(entryOf({ state: "switching", destination: "c" }, 3)),
      promise(entryOf({ state: "switching", migration: "f".repeat(16) as never }, 3)),
      { _tag: "RecordWritten", op: "nobody's", outcome: { revision: 8 } },
      { _tag: "RecordWritten", op: "nobody's", outcome: "Lost" },
      { _tag: "RecordRead", op: "nobody's", entry: entryOf({ state: "destination" }, 99) },
      ...steps.map((local): DestinationEvent => ({ _tag: "LocalFailed", step: local, failure: FAILURE })),
    ];
  }
}
