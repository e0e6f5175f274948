/** The source side of one migration: one event in, its effects out. No clock, no randomness, no I/O. */
import { Channels, CodecChoice, Ledger, Pace, Verification } from "@godwit/multifd";
import {
  type Authority,
  type Capabilities,
  type Failure,
  FENCE_OP_PREFIX,
  type OwnershipEntry,
  type Parameters,
  type SettlementEvent,
  settle,
} from "@godwit/protocol";
import * as Devices from "./devices.ts";
import {
  devicesReleased,
  type Emit,
  fail,
  guestEnded,
  release,
  released,
  resume,
  sourceRecord,
  write,
} from "./ending.ts";
import * as Precopy from "./precopy.ts";
import * as Serving from "./serving.ts";
import type { LocalStep, Source, SourceEffect, SourceEvent } from "./source-state.ts";
import * as Switchover from "./switchover.ts";
import * as Verdict from "./verdict.ts";
import * as Waterfall from "./waterfall.ts";
import { beginFirstRound, devicesReported, guestGone, maybeEnded } from "./with-devices.ts";
import * as Xbzrle from "./xbzrle.ts";

/** Between two tries of a write whose outcome is unknown, ms: a few round trips; a register that changes its leader takes seconds. */
const SETTLE_PAUSE_MS = 50;
/** A report at least so often while something moves, ms: what a watcher sees as "live". */
export const REPORT_MS = 200;
/** The loader is told again until it shows that it knows, ms. */
const TELL_MS = 100;
/** Guests that do not resume are asked again, ms. */
const RESUME_AGAIN_MS = 500;
/** A guest that was claimed and is not begun with for this long is let go, ms: whoever claimed it is gone, and it blocks others. */
const CLAIM_IDLE_MS = 180_000;

export const makeSource = (options: {
  readonly migration: string;
  readonly guest: string;
  readonly node: string;
  /** The node that the guest shall go to. */
  readonly destination: string;
  readonly incarnation: string;
  readonly authority: Authority;
  readonly attempt: number;
  readonly parameters: Parameters;
  /** Default 0: never changed. */
  readonly parametersRevision?: number;
  readonly capabilities: Capabilities;
  readonly itemPagesMax: number;
  readonly now: number;
}): Source => ({
  migration: options.migration,
  route: { migration: options.migration, source: options.node, destination: options.destination },
  guest: options.guest,
  node: options.node,
  incarnation: options.incarnation,
  capabilities: options.capabilities,
  itemPagesMax: options.itemPagesMax,
  authority: options.authority,
  attempt: options.attempt,
  parameters: options.parameters,
  parametersRevision: options.parametersRevision ?? 0,
  phase: { _tag: "Claiming", settlement: null },
  epoch: 0,
  revision: 0,
  ops: 0,
  wasRunning: false,
  offer: null,
  devices: null,
  startedAt: options.now,
  destination: null,
  blockPages: [],
  ledger: Ledger.make([]),
  xbzrle: null,
  channels: Channels.make(options.parameters["multifd-channels"]),
  pace: Pace.make(options.parameters["max-bandwidth"], options.now),
  codec: options.parameters["multifd-compression"] === "auto" ? CodecChoice.make(options.now) : null,
  tracker: null,
  manifest: null,
  postcopy: false,
  missing: null,
  deviceBytes: 0,
  deviceDigest: 0,
  verdictWanted: null,
  failure: null,
  handedOver: null,
  guestEnded: null,
  marks: { devices: 0, save: 0, running: 0 },
  times: Waterfall.makeTimes(),
  meter: {
    wireBytes: 0,
    normalPages: 0,
    pages: 0,
    roundNormalBytes: 0,
    roundStartedAt: options.now,
    bandwidth: 0,
    dirtyPagesRate: 0,
    lastSyncAt: 0,
    syncMs: 0,
    ackMs: 0,
    checkedBytes: 0,
    checksStartedAt: options.now,
    verifyBandwidth: 0,
  },
  recordUnknownSince: null,
  lastStepAt: options.now,
  workersLostAt: options.now,
  nextReportAt: options.now + REPORT_MS,
  nextCheckAt: 0,
  nextTellAt: 0,
});

/** The first effects of a new source. */
export const begin: ReadonlyArray<SourceEffect> = [{ _tag: "Local", step: "describe", round: 0 }];

/** Advances `source` (which it owns and changes) by one event. `us`: the same moment by the monotonic clock, for what is measured. */
export const step = (source: Source, event: SourceEvent, now: number, us = now * 1000): SourceEffect[] => {
  const effects: SourceEffect[] = [];
  const emit: Emit = (effect) => effects.push(effect);
  source.lastStepAt = now;
  handle(source, event, now, emit);
  Precopy.pump(source, now, emit);
  Precopy.maybeEndRound(source, now, emit);
  Waterfall.note(source, effects, us);
  const at = nextWake(source, now);
  if (at !== null) emit({ _tag: "WakeAt", at });
  return effects;
};

const handle = (source: Source, event: SourceEvent, now: number, emit: Emit): void => {
  const { phase } = source;
  switch (event._tag) {
    case "Described":
      if (phase._tag !== "Claiming" || source.offer !== null) return;
      source.offer = event.offer;
      source.wasRunning = event.running;
      source.devices = (event.offer.devices ?? []).length === 0 ? null : Devices.make();
      if (source.devices !== null && source.capabilities["postcopy-ram"])
        return fail(source, Serving.noDevices(source), emit);
      source.blockPages = event.offer.blocks.map((block) => block["length-bytes"] / 4096);
      emit({ _tag: "ReadRecord", op: "claim", afterMs: 0 });
      return;
    case "RecordRead":
      return recordRead(source, event, now, emit);
    case "RecordWritten":
      noteAnswer(source, event.outcome, now);
      return settlementEvent(source, { ...event, _tag: "Written" }, now, emit);
    case "Start":
      if (phase._tag !== "Claimed" || event.epoch !== source.epoch) return;
      source.destination = { node: event.destination, incarnation: event.incarnation, life: 0 };
      source.itemPagesMax = Math.min(source.itemPagesMax, event.itemPagesMax);
      source.phase = { _tag: "OpeningTracker" };
      emit({ _tag: "Local", step: "open-tracker", round: 0 });
      if (source.devices !== null) Devices.lead(source.devices, "precopy", now, emit);
      return;
    case "TrackerOpened":
      if (phase._tag !== "OpeningTracker") return;
      source.tracker = event.kind;
      source.ledger = Ledger.make(source.blockPages, source.itemPagesMax, verificationOf(source));
      if (source.capabilities.xbzrle) source.xbzrle = Xbzrle.make(source);
      return beginFirstRound(source, now, emit);
    case "DevicesReported":
      return devicesReported(source, event.report, now, emit);
    case "Found":
      if ((!isScanning(source) && phase._tag !== "FinalSync") || event.round !== source.ledger.round) return;
      for (let r = 0; r < event.runs.length; r += 2) {
        Ledger.found(source.ledger, event.block, event.runs[r]!, event.runs[r + 1]!);
      }
      return;
    case "Synced":
      if (event.round !== source.ledger.round) return;
      if (isScanning(source)) return Verdict.synced(source, event, now, emit);
      if (phase._tag === "FinalSync") return Switchover.finallySynced(source, emit);
      return;
    case "Applied":
      if (event.epoch !== source.epoch || event.round !== source.ledger.round) return;
      if (event.incarnation !== source.destination?.incarnation) return;
      return Precopy.itemsApplied(source, event, now);
    case "Refused":
      if (event.epoch === source.epoch && event.round === source.ledger.round)
        Precopy.itemsRefused(source, event, now, emit);
      return;
    case "Differs":
      if (event.epoch !== source.epoch || event.round !== source.ledger.round) return;
      if (event.incarnation !== source.destination?.incarnation) return;
      for (const item of event.items) Precopy.itemDiffers(source, item, event.differing, emit);
      return;
    case "DestinationResumed":
      if (event.epoch !== source.epoch || event.incarnation !== source.destination?.incarnation) return;
      if (event.life <= source.destination.life) return;
      source.destination.life = event.life;
      return Precopy.linkRestored(source);
    case "WorkerUp":
      return Precopy.workerUp(source, event.worker);
    case "WorkerDown":
      return Precopy.workerDown(source, event.worker, now);
    case "LinkRestored":
      return Precopy.linkRestored(source);
    case "Verdict":
      return Verdict.judged(source, event, emit);
    case "StartPostcopy":
      return Verdict.startPostcopy(source, event.epoch, emit);
    case "Continue":
      if (phase._tag === "PreSwitchover") Switchover.saveDeviceState(source, now, emit);
      return;
    case "Tune":
      // Said before what is known already.
      if (event.revision < source.parametersRevision) return;
      source.parametersRevision = event.revision;
      source.parameters = event.parameters;
      source.pace.bytesPerSecond = Devices.paceFor(source.devices, event.parameters["max-bandwidth"]);
      return;
    case "Abort":
      return fail(source, event.failure, emit);
    case "Paused":
      if (phase._tag !== "Stopping") return;
      if (event.since !== undefined) Waterfall.stoppedSince(source, event.since);
      return Switchover.paused(source, now, emit);
    case "DeviceStateSaved":
      if (phase._tag === "SavingDeviceState") Switchover.deviceStateSaved(source, event, now, emit);
      return;
    case "DestinationRunning":
      if (event.epoch === source.epoch && event.incarnation === source.destination?.incarnation) {
        source.times.destination ??= event.waterfall ?? null;
        Switchover.destinationRunning(source, now, emit);
      }
      return;
    case "DestinationFailed":
      if (event.epoch === source.epoch && event.incarnation === source.destination?.incarnation) {
        fail(source, event.failure, emit);
      }
      return;
    case "Resumed":
      if (phase._tag === "Resuming") release(source, emit);
      return;
    case "Served":
      // Whoever asked meanwhile was refused, and asks again.
      if (phase._tag === "Serving") emit({ _tag: "Report" });
      return;
    case "Discarded":
      if (phase._tag === "Discarding") guestGone(source, now, emit);
      return;
    case "GuestEnded":
      if (phase._tag === "Serving") {
        source.guestEnded ??= event.failure;
        return Serving.memoryLost(source, event.failure, emit);
      }
      return guestEnded(source, event.failure, emit);
    case "LocalFailed":
      return localFailed(source, event.step, event.failure, now, emit);
    case "Tick":
      return tick(source, now, emit);
  }
};

const verificationOf = (source: Source): Verification.Verification | null =>
  source.capabilities.verify ? Verification.make(source.blockPages) : null;

const isScanning = (source: Source): boolean => source.phase._tag === "Precopy" && source.phase.scanning;

/** O8: how long the record has been out of reach is what an operator of a guest that stands still wants to know. */
const noteAnswer = (source: Source, answer: unknown, now: number): void => {
  source.recordUnknownSince = answer === "Unknown" ? (source.recordUnknownSince ?? now) : null;
};

const recordRead = (
  source: Source,
  event: { readonly op: string; readonly entry: OwnershipEntry | null | "Unknown" },
  now: number,
  emit: Emit,
): void => {
  noteAnswer(source, event.entry, now);
  if (event.op === "claim") return claim(source, event.entry, emit);
  if (event.op === "confirm") return Switchover.confirmed(source, event.entry, now, emit);
  settlementEvent(source, { _tag: "Read", op: event.op, entry: event.entry }, now, emit);
};

/** Claims the guest by a higher epoch, if the record allows it (O1). */
const claim = (source: Source, entry: OwnershipEntry | null | "Unknown", emit: Emit): void => {
  const { phase } = source;
  if (phase._tag !== "Claiming" || phase.settlement !== null || source.offer === null) return;
  if (entry === "Unknown") return emit({ _tag: "ReadRecord", op: "claim", afterMs: SETTLE_PAUSE_MS });
  if (entry !== null && entry.record.node !== source.node) {
    const reason = `the ownership record says that guest ${source.guest} belongs to node ${entry.record.node}, not ${source.node}`;
    return fail(source, { code: "fenced", actor: "ram-sender", side: "source", step: "claim the guest", reason }, emit);
  }
  // A switchover of an earlier life of this process is being taken back by its recovery; the claim waits for that.
  if (entry?.record.state === "switching") return emit({ _tag: "ReadRecord", op: "claim", afterMs: SETTLE_PAUSE_MS });
  // A record still open says that whoever died had stopped a running guest.
  if (entry?.record.open === true && entry.record.wasRunning) source.wasRunning = true;
  source.epoch = (entry?.record.epoch ?? 0) + 1;
  source.revision = entry?.revision ?? 0;
  source.phase = { _tag: "Claiming", settlement: write(source, sourceRecord(source, true), emit) };
};

/** A write of the record was answered, or was not: settle it (O5), then go where its outcome leads. */
const settlementEvent = (source: Source, event: SettlementEvent, now: number, emit: Emit): void => {
  const { phase } = source;
  if (!("settlement" in phase) || phase.settlement === null || phase.settlement.record.op !== event.op) return;
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
      source.revision = next.revision;
      return won(source, now, emit);
    case "Lost":
      return lost(source, next.to, now, emit);
  }
};

const won = (source: Source, now: number, emit: Emit): void => {
  switch (source.phase._tag) {
    case "Claiming":
      source.phase = { _tag: "Claimed" };
      if (source.failure !== null) return fail(source, source.failure, emit);
      return emit({ _tag: "Report" });
    case "Switching":
      return Switchover.switched(source, now, emit);
    case "TakingBack":
      return resume(source, emit);
    case "Releasing":
      return released(source, emit);
    case "Losing":
      return Serving.lossTold(source, emit);
    default:
      throw new Error(`no write is settled in ${source.phase._tag}`);
  }
};

const lost = (source: Source, entry: OwnershipEntry, now: number, emit: Emit): void => {
  if (source.phase._tag === "Losing") return Serving.lossNotTold(source, entry, now, emit);
  // Who only claims has handed nothing over: it was another life, or another migration.
  if (source.phase._tag !== "Claiming" && Serving.isHandedOver(source, entry))
    return Serving.handedOver(source, entry, now, emit);
  switch (source.phase._tag) {
    case "Claiming":
      source.phase = { _tag: "Claiming", settlement: null };
      return claim(source, entry, emit);
    case "Releasing":
      if (!isTakenBackForUs(entry) || !entry.record.open) return released(source, emit);
      // Left open for whoever lets the guest go on, which it does already.
      source.epoch = entry.record.epoch;
      source.revision = entry.revision;
      return release(source, emit);
    case "Switching":
    case "TakingBack":
      if (isTakenBackForUs(entry)) return goOn(source, entry, emit);
      return fencedOff(source, entry, emit);
    default:
      return fencedOff(source, entry, emit);
  }
};

const isTakenBackForUs = ({ record }: OwnershipEntry): boolean =>
  record.state === "source" && record.op.startsWith(FENCE_OP_PREFIX);

/** A coordinator gave this source up for lost and took the guest back for it: go on from its record. */
const goOn = (source: Source, entry: OwnershipEntry, emit: Emit): void => {
  source.failure ??= fencedBy(source, entry);
  source.epoch = entry.record.epoch;
  source.revision = entry.revision;
  source.phase = { _tag: "TakingBack", settlement: write(source, sourceRecord(source, true), emit) };
};

/** Somebody else holds the guest by a higher epoch: it is no longer ours to stop, resume or discard (R7). */
const fencedOff = (source: Source, entry: OwnershipEntry, emit: Emit): void => {
  source.failure ??= fencedBy(source, entry);
  emit({ _tag: "CloseTracker" });
  released(source, emit);
};

const fencedBy = (source: Source, entry: OwnershipEntry): Failure => ({
  code: "fenced",
  actor: "ram-sender",
  side: "source",
  step: "write the ownership record",
  reason: `epoch ${source.epoch} was fenced off by epoch ${entry.record.epoch} (${entry.record.state} at ${entry.record.node})`,
});

const localFailed = (source: Source, localStep: LocalStep, failure: Failure, now: number, emit: Emit): void => {
  const { phase } = source;
  if (phase._tag === "Resuming" && localStep === "resume") {
    source.failure ??= failure;
    source.nextCheckAt = now + RESUME_AGAIN_MS;
    return;
  }
  // The pages are nowhere else: it is tried again until it works.
  if (phase._tag === "Serving") {
    if (localStep === "serve") source.nextCheckAt = now + Serving.SERVE_AGAIN_MS;
    return;
  }
  // The record already says that the guest belongs to the destination; a copy that would not go away is stopped and stays so.
  if (phase._tag === "Discarding" && localStep === "discard") return guestGone(source, now, emit);
  const underWay = UNDER_WAY[phase._tag];
  if (underWay === undefined) return fail(source, failure, emit);
  source.failure ??= failure;
  // Two steps at once would let the later one win: a guest that is let go on and then paused stands still for ever.
  if (localStep === underWay) resume(source, emit);
};

/** The step that a phase with a stopped guest waits for; its answer leads on. */
const UNDER_WAY: Partial<Record<Source["phase"]["_tag"], LocalStep>> = {
  Stopping: "pause",
  SavingDeviceState: "save-device-state",
  FinalSync: "sync",
};

const tick = (source: Source, now: number, emit: Emit): void => {
  const { phase } = source;
  if (Precopy.isSending(source)) Precopy.checkChannels(source, now, emit);
  const agentFailure = Devices.tick(source, now, emit);
  if (agentFailure !== null) fail(source, agentFailure, emit);
  if (source.phase._tag === "ReleasingDevices" && source.devices !== null && Devices.isOverdue(source.devices, now))
    devicesReleased(source, emit);
  if (phase._tag === "Claimed" && now - source.startedAt >= CLAIM_IDLE_MS) {
    const reason = `no coordinator has begun with guest ${source.guest} within ${CLAIM_IDLE_MS} ms`;
    fail(
      source,
      { code: "coordinator-lost", actor: "ram-sender", side: "source", step: "wait to begin", reason },
      emit,
    );
  }
  if (phase._tag === "Resuming" && now >= source.nextCheckAt) {
    source.nextCheckAt = Number.POSITIVE_INFINITY;
    emit({ _tag: "Local", step: "resume", round: 0 });
  }
  maybeEnded(source, now, emit);
  if (Switchover.isUnderWay(source) && Switchover.isPastDeadline(source, now)) {
    const reason = `the switchover took longer than switchover-deadline (${source.parameters["switchover-deadline"]} ms)`;
    fail(
      source,
      { code: "switchover-deadline", actor: "ram-sender", side: "source", step: "switch over", reason },
      emit,
    );
  }
  if (source.phase._tag === "AwaitingCommit" && now >= source.nextTellAt) {
    source.nextTellAt = now + TELL_MS;
    emit({ _tag: "TellLoader" });
    if (source.marks.running !== 0) emit({ _tag: "ReadRecord", op: "confirm", afterMs: 0 });
  }
  if (source.phase._tag === "Serving") Serving.tickServing(source, now, emit);
  if (now >= source.nextReportAt) {
    source.nextReportAt = now + REPORT_MS;
    emit({ _tag: "Report" });
  }
};

/** When time alone changes something, ms; null once everything is said and done. */
const nextWake = (source: Source, now: number): number | null => {
  const { phase } = source;
  if (phase._tag === "Ended") return null;
  let at = Math.max(now, source.nextReportAt);
  if (phase._tag === "Precopy" && Ledger.hasWork(source.ledger) && source.pace.tokens < 0)
    at = Math.min(at, Pace.payday(source.pace));
  at = Math.min(at, Math.max(now, Precopy.roundDueAt(source) ?? at));
  if (source.ledger.outstanding.size > 0) at = Math.min(at, now + Precopy.resendAfterMs(source) / 2);
  if (phase._tag === "AwaitingCommit" || phase._tag === "Serving") at = Math.min(at, Math.max(now, source.nextTellAt));
  if (phase._tag === "Serving") at = Math.min(at, Math.max(now, source.nextCheckAt));
  const tellAt = Devices.nextWake(source);
  if (tellAt !== null) at = Math.min(at, Math.max(now, tellAt));
  if (phase._tag === "Resuming" && source.nextCheckAt > now) at = Math.min(at, source.nextCheckAt);
  return at;
};
