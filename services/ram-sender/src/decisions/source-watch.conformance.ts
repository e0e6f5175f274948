/** A source watched from outside: what may happen to it next, and what it must never do. */
import { Channels } from "@godwit/multifd";
import {
  FENCE_OP_PREFIX,
  json,
  NO_XBZRLE,
  type Offer,
  type OwnershipEntry,
  type OwnershipRecord,
  PACKET_PAGES_MAX,
  PARAMETER_DEFAULTS,
  proposeCapabilities,
  SourceReport,
} from "@godwit/protocol";
import { expect } from "vitest";
import { reportOf } from "./report.ts";
import { begin, makeSource, step } from "./source.ts";
import type { LocalStep, Source, SourceEffect, SourceEvent } from "./source-state.ts";

const MIGRATION = "0123456789abcdef";
export const DESTINATION = "d".repeat(16);
const PAGES = 300;
export const FAILURE = { code: "cancelled", actor: "coordinator", step: "cancel", reason: "by request" } as const;

export const GUEST_ENDED = {
  code: "guest-shutdown",
  actor: "ram-sender",
  side: "source",
  step: "watch the guest",
  reason: "it shut itself down",
} as const;

export const make = (capabilities: Record<string, boolean> = {}): Source =>
  makeSource({
    migration: MIGRATION,
    guest: "vm1",
    node: "a",
    incarnation: "a".repeat(16),
    destination: "b",
    authority: { term: 1, coordinator: null },
    attempt: 1,
    parameters: { ...PARAMETER_DEFAULTS, "max-bandwidth": 0 },
    capabilities: proposeCapabilities(capabilities) as never,
    itemPagesMax: 64,
    now: 1000,
  });
export const offer: Offer = {
  version: 1,
  driver: "builtin",
  machine: "m",
  hypervisor: "h",
  running: true,
  blocks: [{ name: "ram0", "length-bytes": PAGES * 4096, "page-size": 4096 }],
};
export const recordOf = (
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
    ...(change.state === "switching"
      ? { destination: "b", manifest: { round: 1, items: 0, deviceBytes: 0, deviceDigest: 0 } }
      : {}),
    ...change,
  }) as OwnershipRecord;

/** Watches a source from outside, and says which events may come; knows nothing of its phases but what they emit. */
export class Watch {
  readonly source: Source;
  now = 1000;
  /** A write of `switching` is out, and no later write of `source` is known to have won. */
  mayBeSwitching = false;
  /** Operation ids of `source` records written since. */
  takeBacks = new Set<string>();
  readonly unanswered = new Map<LocalStep, number>();
  guestEnded = false;
  /** The record was seen to say that the destination needs nothing of this side any more. */
  seenClosed = false;
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
    if (event._tag === "GuestEnded") this.guestEnded = true;
    if (event._tag === "RecordRead" && event.entry !== null && event.entry !== "Unknown") this.read(event.entry);
    if (event._tag === "RecordWritten" && typeof event.outcome === "object" && this.takeBacks.has(event.op))
      this.mayBeSwitching = false;
    this.effects(step(source, event, this.now), event);
    this.check();
  }

  read({ record }: OwnershipEntry): void {
    if (this.takeBacks.has(record.op)) this.mayBeSwitching = false;
    // Nobody claims a guest whose pages are not all there.
    if (record.epoch > this.source.epoch) this.seenClosed = true;
    if (record.state !== "destination" || record.epoch !== this.source.epoch) return;
    this.seenHandedOver = true;
    if (record.postcopy !== true || !record.open || record.lost !== undefined) this.seenClosed = true;
  }

  answered(event: SourceEvent): void {
    const of: Partial<Record<SourceEvent["_tag"], LocalStep>> = {
      Described: "describe",
      TrackerOpened: "open-tracker",
      Synced: "sync",
      Paused: "pause",
      DeviceStateSaved: "save-device-state",
      Resumed: "resume",
      Served: "serve",
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
            if (this.guestEnded) throw new Error("a guest that has ended is asked to go on");
            if (this.mayBeSwitching) throw new Error("the guest goes on while the record may be `switching`");
            if (this.seenHandedOver) throw new Error("the guest goes on at the source after it was handed over");
          }
          if (effect.step === "discard" && !this.seenClosed)
            throw new Error("memory is thrown away that the destination may not have yet");
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
          if (!this.source.channels.workers.has(worker)) throw new Error(`worker ${worker} is not there`);
          if (this.source.ledger.outstanding.get(item.item) !== item) throw new Error("an item that nobody keeps");
          if (item.channel !== channel || item.channelEpoch !== channelEpoch) throw new Error("another channel's item");
          break;
        }
        case "WakeAt":
          if (effect.at < this.now) throw new Error("a wake in the past");
          break;
      }
    }
    const isWoken = effects === begin || effects.some((effect) => effect._tag === "WakeAt");
    if (this.outcome === null && this.source.phase._tag !== "Ended" && !isWoken) throw new Error("nobody wakes it");
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
      if (local === "save-device-state") events.push({ _tag: "DeviceStateSaved", bytes: 300_000, digest: 7 });
      if (local === "resume") events.push({ _tag: "Resumed" });
      if (local === "serve") events.push({ _tag: "Served" });
      if (local === "discard") events.push({ _tag: "Discarded" });
    }
    if (source.channels.workers.size === 0) events.push({ _tag: "WorkerUp", worker: "w0" });
    if (phase._tag === "Claimed")
      events.push({ _tag: "Start", epoch, destination: "b", incarnation: DESTINATION, itemPagesMax: PACKET_PAGES_MAX });
    if (phase._tag === "Precopy" && phase.verdict === "asked") {
      events.push({ _tag: "Verdict", epoch, round, verdict: "iterate" });
      events.push({ _tag: "Verdict", epoch, round, verdict: "switch-over" });
      if (source.capabilities["postcopy-ram"])
        events.push({ _tag: "Verdict", epoch, round, verdict: "start-postcopy" });
    }
    if (phase._tag === "PreSwitchover") events.push({ _tag: "Continue" });
    if (phase._tag === "AwaitingCommit") {
      const postcopy = source.postcopy ? { postcopy: true as const } : {};
      const entry = { record: recordOf(source, { state: "destination", ...postcopy }), revision: source.revision + 1 };
      events.push({ _tag: "DestinationRunning", epoch, incarnation: DESTINATION });
      events.push({ _tag: "RecordRead", op: "confirm", entry });
    }
    if (phase._tag === "Serving") {
      const closed = recordOf(source, { state: "destination", postcopy: true, open: false });
      events.push({ _tag: "Tick" });
      events.push({ _tag: "RecordRead", op: "confirm", entry: { record: closed, revision: source.revision + 2 } });
      const lost = recordOf(source, { state: "destination", postcopy: true, lost: "an operator gave it up" });
      events.push({ _tag: "RecordRead", op: "confirm", entry: { record: lost, revision: source.revision + 2 } });
    }
    const items = Uint32Array.from(source.ledger.outstanding.keys());
    const applied = { epoch, round, incarnation: DESTINATION, normalPages: 1, wireBytes: 100, xbzrle: NO_XBZRLE };
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
      const postcopy = source.postcopy ? { postcopy: true as const } : {};
      if (this.mayBeSwitching) events.push(other({ state: "destination", ...postcopy }, revision + 2));
      else events.push(other({ state: "destination", epoch: next }, revision + 2));
    } else if (phase._tag === "Claiming") {
      const mine = recordOf(source, { state: "source", node: "a", epoch: 4 as never });
      events.push({ _tag: "RecordRead", op: "claim", entry: { record: mine, revision: 9 } });
      events.push({ _tag: "RecordRead", op: "claim", entry: "Unknown" });
    }
    for (const local of this.unanswered.keys()) events.push({ _tag: "LocalFailed", step: local, failure: FAILURE });
    const items = Uint32Array.from(source.ledger.outstanding.keys());
    if (items.length > 0) events.push({ _tag: "Refused", epoch, round: source.ledger.round, items, reason: "gone" });
    events.push({ _tag: "WorkerDown", worker: "w0" }, { _tag: "GuestEnded", failure: GUEST_ENDED });
    return events;
  }

  /** True or not, in time or not. */
  anyTime(): SourceEvent[] {
    const { source } = this;
    const { epoch } = source;
    const { round } = source.ledger;
    const stranger = { record: recordOf(source, { state: "destination", epoch: 77 as never }), revision: 1000 };
    const steps: LocalStep[] = [
      "describe",
      "open-tracker",
      "sync",
      "pause",
      "save-device-state",
      "resume",
      "serve",
      "discard",
    ];
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
      { _tag: "StartPostcopy", epoch },
      { _tag: "StartPostcopy", epoch: epoch - 1 },
      { _tag: "Tune", parameters: { ...source.parameters, "max-bandwidth": 1_000_000 }, revision: 1 },
      { _tag: "Paused" },
      { _tag: "Resumed" },
      { _tag: "Discarded" },
      { _tag: "DeviceStateSaved", bytes: 0, digest: 0 },
      { _tag: "TrackerOpened", kind: "content" },
      { _tag: "Described", offer, running: false },
      { _tag: "Found", round, block: 0, runs: [0, 300] },
      { _tag: "Found", round: round + 1, block: 7, runs: [0, 300] },
      { _tag: "Synced", round: round - 1, dirtyPages: 0, syncMs: 0 },
      {
        _tag: "Start",
        epoch: epoch + 1,
        destination: "c",
        incarnation: "e".repeat(16),
        itemPagesMax: PACKET_PAGES_MAX,
      },
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
        xbzrle: NO_XBZRLE,
      },
      {
        _tag: "Applied",
        epoch,
        round: round - 1,
        incarnation: DESTINATION,
        items: Uint32Array.of(0),
        normalPages: 1,
        wireBytes: 1,
        xbzrle: NO_XBZRLE,
      },
      {
        _tag: "Applied",
        epoch,
        round,
        incarnation: DESTINATION,
        items: Uint32Array.of(4_000_000_000),
        normalPages: 1,
        wireBytes: 1,
        xbzrle: NO_XBZRLE,
      },
      { _tag: "Refused", epoch, round, items: Uint32Array.of(0, 1, 2, 4_000_000_000), reason: "gone" },
      ...steps.map((local): SourceEvent => ({ _tag: "LocalFailed", step: local, failure: FAILURE })),
    ];
  }
}

/** Lets all go well until the source is in a phase; each event comes `ms` after the one before. */
export const until = (watch: Watch, phase: Source["phase"]["_tag"], ms = 7): Watch => {
  for (let events = 0; watch.source.phase._tag !== phase; events++) {
    if (events > 100) throw new Error(`it stays in ${watch.source.phase._tag}`);
    const helpful = watch.helpful().filter((event) => event._tag !== "Verdict" || event.verdict === "switch-over");
    watch.now += ms;
    watch.happen(helpful.at(-1)!);
  }
  return watch;
};
