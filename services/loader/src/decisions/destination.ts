/** The destination side of one migration: one event in, its effects out. No clock, no randomness, no I/O. */
import {
  type Address,
  type Epoch,
  type Failure,
  type Incarnation,
  type MigrationId,
  type Offer,
  type OwnershipEntry,
  type OwnershipRecord,
  type SettlementEvent,
  settle,
} from "@godwit/protocol";
import type { Destination, DestinationEffect, DestinationEvent, LocalStep } from "./destination-state.ts";
import * as Fence from "./fence.ts";

/** Between two tries of a write whose outcome is unknown, ms. */
const SETTLE_PAUSE_MS = 50;
/** The last word is repeated until the coordinator has concluded, ms. */
const REPORT_MS = 200;
/** A session that hears nothing at all for this long frees its memory, ms. */
const IDLE_MS = 60_000;
/** A guest that holds everything and does not start is asked again, ms. */
const START_AGAIN_MS = 500;

type Emit = (effect: DestinationEffect) => void;

export const makeDestination = (options: {
  readonly migration: string;
  readonly guest: string;
  readonly node: string;
  readonly source: string;
  readonly incarnation: string;
  readonly epoch: number;
  readonly term: number;
  readonly offer: Offer;
  readonly now: number;
}): Destination => ({
  migration: options.migration,
  guest: options.guest,
  node: options.node,
  source: options.source,
  startedAt: options.now,
  incarnation: options.incarnation,
  epoch: options.epoch,
  offer: options.offer,
  term: options.term,
  phase: { _tag: "Preparing" },
  fence: Fence.make(
    options.migration,
    options.epoch,
    options.offer.blocks.reduce((sum, block) => sum + block["length-bytes"] / 4096, 0),
  ),
  promise: null,
  revision: 0,
  ops: 0,
  failure: null,
  guestEnded: null,
  heardAt: options.now,
  nextReportAt: options.now + REPORT_MS,
  nextStartAt: 0,
  concluded: false,
});

export const begin: ReadonlyArray<DestinationEffect> = [{ _tag: "Local", step: "prepare" }];

/** Advances `destination` (which it owns and changes) by one event. */
export const step = (destination: Destination, event: DestinationEvent, now: number): DestinationEffect[] => {
  const effects: DestinationEffect[] = [];
  const emit: Emit = (effect) => effects.push(effect);
  handle(destination, event, now, emit);
  if (destination.phase._tag === "Ready") maybeLoad(destination, emit);
  const at = nextWake(destination, now);
  if (at !== null) emit({ _tag: "WakeAt", at });
  return effects;
};

const handle = (destination: Destination, event: DestinationEvent, now: number, emit: Emit): void => {
  const { phase } = destination;
  if (event._tag !== "Tick") destination.heardAt = now;
  switch (event._tag) {
    case "Prepared":
      if (phase._tag !== "Preparing") return;
      if (destination.failure !== null) return discard(destination, emit);
      destination.phase = { _tag: "Ready" };
      return emit({ _tag: "Report" });
    case "SwitchingTold":
      if (phase._tag === "Ready" && event.epoch === destination.epoch && destination.promise === null) {
        emit({ _tag: "ReadRecord", op: "promise", afterMs: 0 });
      }
      return;
    case "RecordRead":
      if (event.op === "promise") return promised(destination, event.entry);
      return settlementEvent(destination, { ...event, _tag: "Read" }, emit);
    case "RecordWritten":
      return settlementEvent(destination, { ...event, _tag: "Written" }, emit);
    case "DeviceStateLoaded":
      if (phase._tag !== "Loading") return;
      if (destination.failure !== null) return discard(destination, emit);
      return commit(destination, emit);
    case "Resumed":
      if (phase._tag === "Starting") started(destination, emit);
      return;
    case "Discarded":
      if (phase._tag === "Discarding") failed(destination, emit);
      return;
    case "LocalFailed":
      return localFailed(destination, event.step, event.failure, now, emit);
    case "Abandon":
      return abandon(destination, event.failure, emit);
    case "GuestEnded":
      return guestEnded(destination, event.failure, emit);
    case "Concluded":
      destination.concluded = true;
      if (event.failure !== null) abandon(destination, event.failure, emit);
      return;
    case "PacketsApplied":
    case "Heard":
      return;
    case "Tick":
      return tick(destination, now, emit);
  }
};

/** The record itself is the promise; the source's message was only the wake-up call. */
const promised = (destination: Destination, entry: OwnershipEntry | null | "Unknown"): void => {
  if (destination.phase._tag !== "Ready" || entry === null || entry === "Unknown") return;
  const { record } = entry;
  if (record.state !== "switching" || record.epoch !== destination.epoch) return;
  if (record.migration !== destination.migration) return;
  if (record.destination !== destination.node || record.incarnation !== destination.incarnation) return;
  destination.promise = { manifest: record.manifest, revision: entry.revision, wasRunning: record.wasRunning };
  destination.revision = entry.revision;
};

const maybeLoad = (destination: Destination, emit: Emit): void => {
  if (destination.promise === null || !Fence.holds(destination.fence, destination.promise.manifest)) return;
  destination.phase = { _tag: "Loading" };
  emit({ _tag: "Local", step: "load-device-state" });
  emit({ _tag: "Report" });
};

const record = (destination: Destination, open: boolean): OwnershipRecord => ({
  state: "destination",
  epoch: destination.epoch as Epoch,
  op: `${destination.incarnation}-${destination.migration}-${destination.epoch}-${++destination.ops}`,
  migration: destination.migration as MigrationId,
  node: destination.node,
  open,
  wasRunning: destination.promise?.wasRunning ?? true,
  incarnation: destination.incarnation as Incarnation,
});

const write = (destination: Destination, value: OwnershipRecord, emit: Emit) => {
  emit({ _tag: "WriteRecord", record: value, revision: destination.revision, afterMs: 0 });
  return { record: value, revision: destination.revision };
};

/** O3: only this write, once settled as won, lets the guest run here. */
const commit = (destination: Destination, emit: Emit): void => {
  destination.phase = { _tag: "Committing", settlement: write(destination, record(destination, true), emit) };
  emit({ _tag: "Report" });
};

const settlementEvent = (destination: Destination, event: SettlementEvent, emit: Emit): void => {
  const { phase } = destination;
  if (!("settlement" in phase) || phase.settlement.record.op !== event.op) return;
  const next = settle(phase.settlement, event);
  const afterMs = "after" in next && next.after === "a pause" ? SETTLE_PAUSE_MS : 0;
  switch (next._tag) {
    case "Write":
      return emit({
        _tag: "WriteRecord",
        record: phase.settlement.record,
        revision: phase.settlement.revision,
        afterMs,
      });
    case "Read":
      return emit({ _tag: "ReadRecord", op: phase.settlement.record.op, afterMs });
    case "Won":
      destination.revision = next.revision;
      if (phase._tag === "Committing") return start(destination, emit);
      return closed(destination);
    case "Lost":
      if (phase._tag === "Closing") return closed(destination);
      destination.failure ??= {
        code: "fenced",
        actor: "loader",
        side: "destination",
        step: "commit",
        reason: `the source took the guest back (record: ${next.to.record.state}, epoch ${next.to.record.epoch})`,
      };
      return discard(destination, emit);
  }
};

const closed = (destination: Destination): void => {
  destination.phase = { _tag: destination.failure === null ? "Running" : "Lost" };
};

const start = (destination: Destination, emit: Emit): void => {
  if (destination.guestEnded !== null) return lost(destination, destination.guestEnded, emit);
  // A guest that was paused at the source arrives paused.
  if (destination.promise?.wasRunning === false) return started(destination, emit);
  destination.phase = { _tag: "Starting" };
  emit({ _tag: "Local", step: "resume" });
};

const started = (destination: Destination, emit: Emit): void => {
  destination.phase = { _tag: "Closing", settlement: write(destination, record(destination, false), emit) };
  emit({ _tag: "Report" });
};

/** It was handed over, and nobody else may run it: the record is closed on it. */
const lost = (destination: Destination, failure: Failure, emit: Emit): void => {
  destination.failure = failure;
  destination.nextStartAt = 0;
  started(destination, emit);
};

const guestEnded = (destination: Destination, failure: Failure, emit: Emit): void => {
  destination.guestEnded ??= failure;
  if (destination.phase._tag === "Starting") return lost(destination, failure, emit);
  // Before the commit this ends the attempt; while it is written, the record decides; a guest that has run has a life of its own.
  abandon(destination, failure, emit);
};

const discard = (destination: Destination, emit: Emit): void => {
  destination.phase = { _tag: "Discarding" };
  emit({ _tag: "Report" });
  emit({ _tag: "Local", step: "discard" });
};

const failed = (destination: Destination, emit: Emit): void => {
  destination.phase = { _tag: "Failed" };
  emit({ _tag: "Report" });
};

const abandon = (destination: Destination, failure: Failure, emit: Emit): void => {
  switch (destination.phase._tag) {
    case "Preparing":
    case "Loading":
      // The guest is being worked on: the answer to that leads to Discarding.
      destination.failure ??= failure;
      return;
    case "Ready":
      destination.failure ??= failure;
      return discard(destination, emit);
    default:
      // Committing: the record decides. Later: the guest runs here. Earlier: it is over already.
      return;
  }
};

const localFailed = (
  destination: Destination,
  localStep: LocalStep | "apply",
  failure: Failure,
  now: number,
  emit: Emit,
): void => {
  switch (destination.phase._tag) {
    case "Preparing":
      destination.failure ??= failure;
      // What prepare could not get ready is not ours to discard: it may be somebody's running guest.
      if (localStep === "prepare") failed(destination, emit);
      return;
    case "Ready":
      destination.failure ??= failure;
      return discard(destination, emit);
    case "Loading":
      destination.failure ??= failure;
      // Whatever else has failed, the guest's own work ends first; its answer leads to Discarding.
      if (localStep === "load-device-state") discard(destination, emit);
      return;
    case "Starting":
      // The guest is ours and nobody else's: there is no way but forward.
      if (localStep === "resume") destination.nextStartAt = now + START_AGAIN_MS;
      return;
    case "Discarding":
      if (localStep === "discard") failed(destination, emit);
      return;
    default:
      return;
  }
};

const tick = (destination: Destination, now: number, emit: Emit): void => {
  const { phase } = destination;
  if (phase._tag === "Ready" && now - destination.heardAt >= IDLE_MS) {
    const reason = `neither the source nor a coordinator was heard for ${IDLE_MS} ms`;
    destination.failure = { code: "source-lost", actor: "loader", side: "destination", step: "receive pages", reason };
    return discard(destination, emit);
  }
  if (phase._tag === "Starting" && destination.nextStartAt !== 0 && now >= destination.nextStartAt) {
    destination.nextStartAt = 0;
    emit({ _tag: "Local", step: "resume" });
  }
  if (now >= destination.nextReportAt) {
    destination.nextReportAt = now + REPORT_MS;
    emit({ _tag: "Report" });
  }
};

const isOver = (destination: Destination): boolean =>
  destination.phase._tag === "Running" || destination.phase._tag === "Lost" || destination.phase._tag === "Failed";

/** An ended session is forgotten when it was concluded, or when nobody was heard for long. */
export const mayForget = (destination: Destination, now: number): boolean =>
  isOver(destination) && now - destination.heardAt >= IDLE_MS;

const nextWake = (destination: Destination, now: number): number | null => {
  if (isOver(destination) && (destination.concluded || now - destination.heardAt >= IDLE_MS)) return null;
  const report = Math.max(now, destination.nextReportAt);
  return destination.nextStartAt === 0 ? report : Math.min(report, Math.max(now, destination.nextStartAt));
};

/**
 * Whether a packet may touch memory now. Only in Ready: once everything promised is here the memory belongs to the device state,
 * and soon to the running guest; a late copy of a page would overwrite what the guest has written since.
 */
export const admit = (destination: Destination, packet: Address): Fence.Verdict | "not receiving" =>
  destination.phase._tag === "Ready" ? Fence.admit(destination.fence, packet) : "not receiving";
