/** How an attempt ends: completed, or with the guest going on at the source. Each path goes through a settled write of the record. */
import type { Epoch, Failure, Incarnation, MigrationId, OwnershipRecord, Settlement } from "@godwit/protocol";
import * as Devices from "./devices.ts";
import type { Source, SourceEffect } from "./source-state.ts";

export type Emit = (effect: SourceEffect) => void;

/** Unique over all writes of this process: a later attempt must never take an earlier one's write for its own (O5). */
export const nextOp = (source: Source): string =>
  `${source.incarnation}-${source.migration}-${source.attempt}-${++source.ops}`;

const base = (source: Source) => ({
  epoch: source.epoch as Epoch,
  op: nextOp(source),
  migration: source.migration as MigrationId,
  node: source.node,
  wasRunning: source.wasRunning,
});

export const sourceRecord = (source: Source, open: boolean): OwnershipRecord => ({
  state: "source",
  ...base(source),
  open,
});

export const switchingRecord = (source: Source): OwnershipRecord => {
  if (source.destination === null || source.manifest === null)
    throw new Error("switching without destination or manifest");
  return {
    state: "switching",
    ...base(source),
    open: true,
    destination: source.destination.node,
    incarnation: source.destination.incarnation as Incarnation,
    manifest: source.manifest,
  };
};

/** Starts a settled write from the revision we hold. */
export const write = (source: Source, record: OwnershipRecord, emit: Emit): Settlement => {
  const settlement: Settlement = { record, revision: source.revision };
  emit({ _tag: "WriteRecord", record, revision: source.revision, afterMs: 0 });
  return settlement;
};

/**
 * Ends the attempt with the guest at the source. May be called at any time; what must be undone depends on the phase. Where an
 * answer is on its way (pause, a write of the record) the reason is only noted, and the answer leads back here.
 */
export const fail = (source: Source, failure: Failure, emit: Emit): void => {
  const { phase } = source;
  // The guest is at the destination, or the ending was told: a reason that comes now is not this attempt's (R10).
  if (phase._tag === "Serving" || phase._tag === "Losing" || phase._tag === "Discarding" || phase._tag === "Ended")
    return;
  // What failed because the guest is gone is told as that.
  source.failure ??= source.guestEnded ?? failure;
  switch (phase._tag) {
    case "Claiming":
      // Nothing was touched. A claim that lands late leaves an open record without a live attempt, which the next claim supersedes.
      source.phase = { _tag: "Ended", outcome: "failed" };
      emit({ _tag: "Report" });
      return;
    case "Claimed":
      return release(source, emit);
    case "OpeningTracker":
    case "Precopy":
      emit({ _tag: "CloseTracker" });
      return release(source, emit);
    case "StoppingDevices":
    case "PreSwitchover":
    case "SavingDevices":
      return resume(source, emit);
    case "AwaitingCommit":
      source.phase = { _tag: "TakingBack", settlement: write(source, sourceRecord(source, true), emit) };
      emit({ _tag: "Report" });
      return;
    case "Stopping":
    case "SavingDeviceState":
    case "FinalSync":
    case "Switching":
    case "TakingBack":
    case "ReleasingDevices":
    case "Resuming":
    case "Releasing":
      return;
  }
};

/** The guest has shut down, crashed or is gone. What was promised to the destination before is all there: it may still arrive. */
export const guestEnded = (source: Source, failure: Failure, emit: Emit): void => {
  source.guestEnded ??= failure;
  switch (source.phase._tag) {
    case "Switching":
    case "AwaitingCommit":
      return;
    case "Resuming":
      return release(source, emit);
    default:
      return fail(source, failure, emit);
  }
};

/** The guest was stopped and the record says `source`: let it go on, if it ran before and is still there. */
export const resume = (source: Source, emit: Emit): void => {
  emit({ _tag: "CloseTracker" });
  if (Devices.mustRelease(source.devices)) return releaseDevices(source, source.devices, "resume", emit);
  if (!source.wasRunning || source.guestEnded !== null) return release(source, emit);
  source.phase = { _tag: "Resuming" };
  // Asked again only when it was refused: an answer that comes late must not meet a guest that was stopped anew.
  source.nextCheckAt = Number.POSITIVE_INFINITY;
  emit({ _tag: "Local", step: "resume", round: source.ledger.round });
};

/** Closes the record, so that nobody who restarts later believes this attempt is still on its way. */
export const release = (source: Source, emit: Emit): void => {
  if (Devices.mustRelease(source.devices)) return releaseDevices(source, source.devices, "release", emit);
  source.phase = { _tag: "Releasing", settlement: write(source, sourceRecord(source, false), emit) };
};

const releaseDevices = (source: Source, devices: Devices.Devices, next: "resume" | "release", emit: Emit): void => {
  source.phase = { _tag: "ReleasingDevices", next };
  Devices.lead(devices, "resumed", source.lastStepAt, emit);
  emit({ _tag: "Report" });
};

/** The devices run again, or would not. */
export const devicesReleased = (source: Source, emit: Emit): void => {
  if (source.phase._tag !== "ReleasingDevices" || source.devices === null) return;
  source.devices.isReleased = true;
  return source.phase.next === "resume" ? resume(source, emit) : release(source, emit);
};

export const released = (source: Source, emit: Emit): void => {
  source.phase = { _tag: "Ended", outcome: "failed" };
  emit({ _tag: "Report" });
};

/** The record says `destination`: this copy of the guest must never run again. */
export const complete = (source: Source, emit: Emit): void => {
  source.failure = null;
  discard(source, emit);
};

/** With a failure the attempt ends as failed, and without the guest all the same. */
export const discard = (source: Source, emit: Emit): void => {
  source.phase = { _tag: "Discarding", guestIsGone: false };
  if (source.devices !== null) Devices.lead(source.devices, "discarded", source.lastStepAt, emit);
  emit({ _tag: "Report" });
  emit({ _tag: "CloseTracker" });
  emit({ _tag: "Local", step: "discard", round: source.ledger.round });
};
