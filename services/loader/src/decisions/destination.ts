/** The destination side of one migration: one event in, its effects out. No clock, no randomness, no I/O. */
import {
  type Epoch,
  type Failure,
  type Incarnation,
  type LoadReport,
  type MigrationId,
  type OwnershipEntry,
  type OwnershipRecord,
  type SettlementEvent,
  settle,
} from "@godwit/protocol";
import {
  type Destination,
  type DestinationEffect,
  type DestinationEvent,
  type LocalStep,
  pagesOf,
  REPORT_MS,
} from "./destination-state.ts";
import * as Devices from "./devices.ts";
import * as Fence from "./fence.ts";
import * as Laps from "./laps.ts";
import {
  ASK_AGAIN_MS,
  beginPostcopy,
  isEndedByOperator,
  isGivenUp,
  isOurs,
  lookedAtWhilePaging,
  missingKnown,
  toldToFetching,
  tuned,
} from "./missing.ts";

/** Between two tries of a write whose outcome is unknown, ms. */
const SETTLE_PAUSE_MS = 50;
/** A session that hears nothing at all for this long frees its memory, ms: longer than anybody waits for a host that was cut off. */
const IDLE_MS = 180_000;
/** A resumed session looks at the record so often until it says what is to be done, ms. */
const LOOK_MS = 500;
/** A guest that holds everything and does not start is asked again, ms. */
const START_AGAIN_MS = 500;

type Emit = (effect: DestinationEffect) => void;

export const begin: ReadonlyArray<DestinationEffect> = [{ _tag: "Local", step: "prepare" }];

/** Advances `destination` (which it owns and changes) by one event. `us`: the same moment by the monotonic clock, for what is measured. */
export const step = (
  destination: Destination,
  event: DestinationEvent,
  now: number,
  us = now * 1000,
): DestinationEffect[] => {
  const effects: DestinationEffect[] = [];
  const emit: Emit = (effect) => effects.push(effect);
  destination.lastStepAt = now;
  handle(destination, event, now, emit);
  if (destination.phase._tag === "Ready") maybeLoad(destination, now, emit);
  Laps.note(destination, event, us);
  const at = nextWake(destination, now);
  if (at !== null) emit({ _tag: "WakeAt", at });
  return effects;
};

const handle = (destination: Destination, event: DestinationEvent, now: number, emit: Emit): void => {
  const { phase } = destination;
  // What it reads of the record by itself is nobody's word.
  if (event._tag !== "Tick" && event._tag !== "RecordRead") destination.heardAt = now;
  switch (event._tag) {
    case "Prepared":
      if (phase._tag !== "Preparing") return;
      destination.mayBeCommitted = event.loaded;
      destination.isListening = event.listening ?? false;
      if (destination.failure !== null) return giveUp(destination, emit);
      return prepared(destination, event.words, now, emit);
    case "DevicesReported":
      return devicesReported(destination, event.report, now, emit);
    case "SwitchingTold":
      if (phase._tag === "Ready" && event.epoch === destination.epoch && destination.promise === null) {
        emit({ _tag: "ReadRecord", op: "promise", afterMs: 0 });
      }
      return;
    case "RecordRead":
      if (event.op === "promise") return promised(destination, event.entry, emit);
      return settlementEvent(destination, { ...event, _tag: "Read" }, emit);
    case "RecordWritten":
      return settlementEvent(destination, { ...event, _tag: "Written" }, emit);
    case "MissingKnown":
      return missingKnown(destination, event.digest, now);
    case "PagesExpected":
      if (phase._tag !== "Expecting") return;
      if (destination.failure !== null) return giveUp(destination, emit);
      // Some device may read memory while it is loaded.
      emit({ _tag: "Fetch" });
      return load(destination, emit);
    case "Fetched":
      if (destination.postcopy === null) return;
      destination.postcopy.info = event.info;
      destination.postcopy.isAllThere ||= event.isAllThere;
      if (isGivenUp(destination)) return;
      // Whatever the source has lost meanwhile is needed no more.
      if (event.isAllThere && phase._tag === "Paging") destination.failure = null;
      if (phase._tag === "Paging" && destination.postcopy.isAllThere) started(destination, emit);
      return;
    case "PauseFetching":
    case "RecoverFetching":
      return toldToFetching(destination, event, emit);
    case "Tune":
      return tuned(destination, event, emit);
    case "DeviceStateLoaded":
      if (phase._tag !== "Loading") return;
      if (destination.failure !== null) return giveUp(destination, emit);
      return commit(destination, emit);
    case "Resumed":
      if (phase._tag === "Starting") running(destination, emit);
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

const prepared = (destination: Destination, words: Uint32Array, now: number, emit: Emit): void => {
  if (destination.devices === null) return ready(destination, words, now, emit);
  destination.phase = { _tag: "PreparingDevices", words };
  Devices.lead(destination, "ready", now, emit);
};

const ready = (destination: Destination, words: Uint32Array, now: number, emit: Emit): void => {
  destination.fence = Fence.make(destination.migration, destination.epoch, pagesOf(destination.offer), words);
  destination.phase = { _tag: "Ready" };
  destination.nextLookAt = now;
  emit({ _tag: "Report" });
};

/** A former life of this loader may have led them further: devices only go on. */
const PREPARED: ReadonlyArray<LoadReport["stage"]> = ["ready", "loading", "loaded", "starting", "running"];

const devicesReported = (destination: Destination, report: LoadReport, now: number, emit: Emit): void => {
  const { devices, phase } = destination;
  if (devices === null || report.epoch !== destination.epoch) return;
  const failure = Devices.reported(devices, report, now);
  switch (phase._tag) {
    case "PreparingDevices":
      if (failure !== null) return devicesFailed(destination, failure, emit);
      if (PREPARED.includes(report.stage)) ready(destination, phase.words, now, emit);
      return;
    case "Ready":
      if (failure !== null) devicesFailed(destination, failure, emit);
      return;
    case "StartingDevices":
      // The guest is ours: a device that failed is told of, and keeps nobody waiting.
      if (report.stage === "running") devicesStarted(destination, emit);
      return;
    case "Discarding":
      // It says so more than once; after the first time nothing is wanted of it.
      if (report.stage === "discarded" && devices.want !== null) discardGuest(destination, emit);
      return;
    default:
      return;
  }
};

const devicesFailed = (destination: Destination, failure: Failure, emit: Emit): void => {
  destination.failure ??= failure;
  giveUp(destination, emit);
};

/** The record itself is the promise; the source's message was only the wake-up call. */
const promised = (destination: Destination, entry: OwnershipEntry | null | "Unknown", emit: Emit): void => {
  const { phase } = destination;
  if (entry === null || entry === "Unknown") return;
  const { record } = entry;
  if (phase._tag === "Paging") return lookedAtWhilePaging(destination, entry, emit);
  if (phase._tag !== "Ready" && phase._tag !== "Yielding") return;
  if (isOurs(destination, record)) {
    destination.revision = entry.revision;
    destination.wasRunning = record.wasRunning;
    if (record.state === "switching" && record.destination === destination.node) {
      destination.promise = { manifest: record.manifest, revision: entry.revision };
      if (record.manifest.postcopy !== undefined) destination.postcopy ??= beginPostcopy();
      Devices.lead(destination, "loaded", destination.lastStepAt, emit);
    }
    // A former life has committed, and did not live to start the guest.
    if (record.state !== "destination") return;
    if (isEndedByOperator(destination, record, emit)) return;
    destination.failure = null;
    if (record.postcopy === true && record.open) destination.postcopy ??= { ...beginPostcopy(), isKnown: true };
    committed(destination, emit);
    return;
  }
  // Nothing leads from there to this attempt, so it does not matter how old the answer is.
  const taken = record.epoch > destination.epoch;
  const closed = record.epoch === destination.epoch && record.state === "source" && !record.open;
  if (!taken && !closed) return;
  destination.failure ??= takenBack(record);
  discard(destination, emit);
};

const takenBack = (record: OwnershipRecord): Failure => ({
  code: "fenced",
  actor: "loader",
  side: "destination",
  step: "commit",
  reason: `the source took the guest back (record: ${record.state}, epoch ${record.epoch})`,
});

const maybeLoad = (destination: Destination, now: number, emit: Emit): void => {
  const { devices } = destination;
  // Loaded by a former life: what was missing was thrown away before that, and the guest may run by now, if this read was a stale one.
  const postcopy = destination.mayBeCommitted ? null : destination.postcopy;
  if (postcopy !== null && !postcopy.isKnown && now >= postcopy.nextAskAt) {
    postcopy.nextAskAt = now + ASK_AGAIN_MS;
    emit({ _tag: "AskMissing" });
  }
  if (!Devices.holdsMemory(destination) || postcopy?.isKnown === false) return;
  if (!Devices.isAt(devices, "loaded")) return Devices.memoryIsHere(devices, emit);
  if (postcopy === null) return load(destination, emit);
  destination.phase = { _tag: "Expecting" };
  emit({ _tag: "Local", step: "expect-pages" });
  emit({ _tag: "Report" });
};

const load = (destination: Destination, emit: Emit): void => {
  destination.phase = { _tag: "Loading" };
  emit({ _tag: "Local", step: "load-device-state" });
  emit({ _tag: "Report" });
};

const record = (destination: Destination, open: boolean): OwnershipRecord => ({
  state: "destination",
  epoch: destination.epoch as Epoch,
  // A later life must not take its predecessor's write for its own (O5).
  op: `${destination.incarnation}.${destination.life}-${destination.migration}-${destination.epoch}-${++destination.ops}`,
  migration: destination.migration as MigrationId,
  node: destination.node,
  open,
  wasRunning: destination.wasRunning,
  incarnation: destination.incarnation as Incarnation,
  ...(destination.postcopy === null ? {} : { postcopy: true as const }),
  // Its end is no completion, for whoever reads it later as well.
  ...(destination.failure?.code === "postcopy-source-lost" || isGivenUp(destination)
    ? { lost: destination.failure?.reason ?? "" }
    : {}),
  ...(isGivenUp(destination) ? { givenUp: true as const } : {}),
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
      if (phase._tag === "Committing") return committed(destination, emit);
      return closed(destination, emit);
    case "Lost":
      if (phase._tag === "Closing") return closedByOther(destination, next.to, emit);
      // A former life's write landed late: it said the same.
      if (next.to.record.state === "destination" && isOurs(destination, next.to.record)) {
        destination.revision = next.to.revision;
        return committed(destination, emit);
      }
      destination.failure ??= takenBack(next.to.record);
      return discard(destination, emit);
  }
};

const closed = (destination: Destination, emit: Emit): void => {
  destination.phase = { _tag: destination.failure === null ? "Running" : "Lost" };
  if (destination.postcopy !== null) emit({ _tag: "Report" });
};

/** What the source has said of pages that it has lost changes nothing: all are here, or the guest is lost already. An operator's word does. */
const closedByOther = (destination: Destination, entry: OwnershipEntry, emit: Emit): void => {
  if (!isOurs(destination, entry.record) || !entry.record.open) return closed(destination, emit);
  destination.revision = entry.revision;
  if (isEndedByOperator(destination, entry.record, emit)) return;
  destination.phase = { _tag: "Closing", settlement: write(destination, record(destination, false), emit) };
};

/** The record says that the guest is ours. */
const committed = (destination: Destination, emit: Emit): void => {
  if (destination.guestEnded !== null) return lost(destination, destination.guestEnded, emit);
  if (destination.postcopy !== null) emit({ _tag: "Fetch" });
  if (destination.devices === null) return devicesStarted(destination, emit);
  destination.phase = { _tag: "StartingDevices" };
  Devices.lead(destination, "running", destination.lastStepAt, emit);
};

const devicesStarted = (destination: Destination, emit: Emit): void => {
  if (destination.guestEnded !== null) return lost(destination, destination.guestEnded, emit);
  // A guest that was paused at the source arrives paused.
  if (!destination.wasRunning) return running(destination, emit);
  destination.phase = { _tag: "Starting" };
  // How the devices stand must be known before the ending is.
  if (destination.devices !== null) emit({ _tag: "Report" });
  emit({ _tag: "Local", step: "resume" });
};

const running = (destination: Destination, emit: Emit): void => {
  if (destination.postcopy === null || destination.postcopy.isAllThere) return started(destination, emit);
  destination.phase = { _tag: "Paging" };
  emit({ _tag: "Report" });
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
  if (destination.phase._tag === "Starting" || destination.phase._tag === "Paging")
    return lost(destination, destination.failure ?? failure, emit);
  // Before the commit this ends the attempt; while it is written, the record decides; a guest that has run has a life of its own.
  abandon(destination, failure, emit);
};

const discard = (destination: Destination, emit: Emit): void => {
  destination.phase = { _tag: "Discarding" };
  emit({ _tag: "Report" });
  // Its devices first: whoever is gone cannot be told to stop.
  if (destination.devices?.want == null) return discardGuest(destination, emit);
  Devices.lead(destination, "discarded", destination.lastStepAt, emit);
};

const discardGuest = (destination: Destination, emit: Emit): void => {
  if (destination.devices !== null) destination.devices.want = null;
  emit({ _tag: "Local", step: "discard" });
};

/** The attempt has failed here. What may have been handed over already is not thrown away before the record says that it was not. */
const giveUp = (destination: Destination, emit: Emit): void => {
  if (!destination.mayBeCommitted) return discard(destination, emit);
  destination.phase = { _tag: "Yielding" };
};

const failed = (destination: Destination, emit: Emit): void => {
  destination.phase = { _tag: "Failed" };
  emit({ _tag: "Report" });
};

const abandon = (destination: Destination, failure: Failure, emit: Emit): void => {
  switch (destination.phase._tag) {
    case "Preparing":
    case "Expecting":
    case "Loading":
      // The guest is being worked on: the answer to that leads to Discarding.
      destination.failure ??= failure;
      return;
    case "PreparingDevices":
    case "Ready":
      destination.failure ??= failure;
      return giveUp(destination, emit);
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
    case "PreparingDevices":
    case "Ready":
      destination.failure ??= failure;
      return giveUp(destination, emit);
    case "Expecting":
    case "Loading":
      destination.failure ??= failure;
      // Whatever else has failed, the guest's own work ends first; its answer leads to Discarding.
      if (localStep === (destination.phase._tag === "Expecting" ? "expect-pages" : "load-device-state"))
        giveUp(destination, emit);
      return;
    case "Paging":
      if (localStep === "give-up-pages" && destination.postcopy !== null) destination.postcopy.isGivenUp = false;
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
  const silence = Devices.tick(destination, now, emit);
  if (silence !== null) return devicesFailed(destination, silence, emit);
  if (destination.devices !== null && Devices.isOverdue(destination.devices, now)) {
    if (phase._tag === "StartingDevices") return devicesStarted(destination, emit);
    if (phase._tag === "Discarding" && destination.devices.want !== null) return discardGuest(destination, emit);
  }
  if (phase._tag === "Ready" && now - destination.heardAt >= IDLE_MS) {
    const reason = `neither the source nor a coordinator was heard for ${IDLE_MS} ms`;
    destination.failure = { code: "source-lost", actor: "loader", side: "destination", step: "receive pages", reason };
    return giveUp(destination, emit);
  }
  if (phase._tag === "Starting" && destination.nextStartAt !== 0 && now >= destination.nextStartAt) {
    destination.nextStartAt = 0;
    emit({ _tag: "Local", step: "resume" });
  }
  if (mustLook(destination) && now >= destination.nextLookAt) {
    destination.nextLookAt = now + LOOK_MS;
    emit({ _tag: "ReadRecord", op: "promise", afterMs: 0 });
  }
  if (now >= destination.nextReportAt) {
    destination.nextReportAt = now + REPORT_MS;
    emit({ _tag: "Report" });
  }
};

const mustLook = ({ phase, life, promise, postcopy, failure }: Destination): boolean =>
  phase._tag === "Yielding" ||
  // Pages that do not come may never come; and a guest that is to end is asked to until it has.
  (phase._tag === "Paging" && (postcopy?.info?.state !== "active" || failure !== null)) ||
  (phase._tag === "Ready" && life > 0 && promise === null);

/** Nothing is left to be done but to tell how it ended. */
export const isOver = (destination: Destination): boolean =>
  destination.phase._tag === "Running" || destination.phase._tag === "Lost" || destination.phase._tag === "Failed";

/** An ended session is forgotten when it was concluded, or when nobody was heard for long. */
export const mayForget = (destination: Destination, now: number): boolean =>
  isOver(destination) && now - destination.heardAt >= IDLE_MS;

const nextWake = (destination: Destination, now: number): number | null => {
  if (isOver(destination) && (destination.concluded || now - destination.heardAt >= IDLE_MS)) return null;
  const tellAt = destination.devices === null ? null : Devices.nextWake(destination.devices);
  const lookAt = mustLook(destination) ? destination.nextLookAt : destination.nextReportAt;
  const report = Math.max(now, Math.min(destination.nextReportAt, lookAt, tellAt ?? destination.nextReportAt));
  const asks =
    destination.phase._tag === "Ready" && !destination.mayBeCommitted && destination.postcopy?.isKnown === false;
  if (asks) return Math.min(report, Math.max(now, destination.postcopy?.nextAskAt ?? now));
  return destination.nextStartAt === 0 ? report : Math.min(report, Math.max(now, destination.nextStartAt));
};
