/** From stopping the guest at the source to hearing that it runs at the destination. */
import { DEVICE_STATE_BYTES_MAX, type OwnershipEntry } from "@godwit/protocol";
import { complete, type Emit, fail, resume, switchingRecord, write } from "./ending.ts";
import * as Ledger from "./ledger.ts";
import { beginRound } from "./precopy.ts";
import type { Source } from "./source-state.ts";

export const stop = (source: Source, now: number, emit: Emit): void => {
  source.phase = { _tag: "Stopping" };
  source.verdictWanted = null;
  source.marks.stop = now;
  emit({ _tag: "Local", step: "pause", round: source.ledger.round });
  emit({ _tag: "Report" });
};

export const paused = (source: Source, now: number, emit: Emit): void => {
  if (source.failure !== null) return resume(source, emit);
  if (!source.capabilities["pause-before-switchover"]) return saveDeviceState(source, now, emit);
  source.phase = { _tag: "PreSwitchover" };
  emit({ _tag: "Report" });
};

export const saveDeviceState = (source: Source, now: number, emit: Emit): void => {
  source.phase = { _tag: "SavingDeviceState" };
  source.marks.save = now;
  emit({ _tag: "Local", step: "save-device-state", round: source.ledger.round });
  emit({ _tag: "Report" });
};

/** The last sync comes after the device state was saved: saving may itself write to RAM. Its round has a number of its own (R2). */
export const deviceStateSaved = (
  source: Source,
  { bytes, digest }: { readonly bytes: number; readonly digest: number },
  now: number,
  emit: Emit,
): void => {
  if (bytes > DEVICE_STATE_BYTES_MAX) {
    const reason = `the device state has ${bytes} bytes, at most ${DEVICE_STATE_BYTES_MAX} can be moved`;
    const step = "save the device state";
    source.failure ??= { code: "device-state-failed", actor: "ram-sender", side: "source", step, reason };
  }
  if (source.failure !== null) return resume(source, emit);
  source.deviceBytes = bytes;
  source.deviceDigest = digest;
  source.marks.sync = now;
  source.phase = { _tag: "FinalSync" };
  beginRound(source, now);
  emit({ _tag: "Local", step: "sync", round: source.ledger.round });
};

/** Everything the destination still needs is known: promise it in the record, and send it meanwhile. */
export const finallySynced = (source: Source, now: number, emit: Emit): void => {
  if (source.failure !== null) return resume(source, emit);
  const { ledger } = source;
  Ledger.foundAll(ledger);
  Ledger.addDeviceState(ledger, source.deviceBytes);
  source.marks.finalRound = now;
  source.manifest = {
    round: ledger.round,
    items: Ledger.promise(ledger),
    deviceBytes: source.deviceBytes,
    deviceDigest: source.deviceDigest,
  };
  source.phase = { _tag: "Switching", settlement: write(source, switchingRecord(source), emit) };
  emit({ _tag: "Report" });
};

export const switched = (source: Source, now: number, emit: Emit): void => {
  source.phase = { _tag: "AwaitingCommit" };
  if (source.failure !== null) return fail(source, source.failure, emit);
  source.nextTellAt = now;
  emit({ _tag: "TellLoader" });
};

/** The loader says that the guest runs there. Its word is a hint; what the record says decides. */
export const destinationRunning = (source: Source, now: number, emit: Emit): void => {
  if (source.phase._tag !== "AwaitingCommit") return;
  if (source.marks.running === 0) source.marks.running = now;
  emit({ _tag: "ReadRecord", op: "confirm", afterMs: 0 });
};

/** `destination` at a revision after our own write cannot be left without us: it may be acted on though it was only read. */
export const confirmed = (source: Source, entry: OwnershipEntry | null | "Unknown", now: number, emit: Emit): void => {
  if (source.phase._tag !== "AwaitingCommit" || entry === null || entry === "Unknown") return;
  if (!isHandedOver(source, entry)) return;
  if (source.marks.running === 0) source.marks.running = now;
  source.revision = entry.revision;
  complete(source, emit);
};

export const isHandedOver = (source: Source, entry: OwnershipEntry): boolean =>
  entry.revision > source.revision && entry.record.state === "destination" && entry.record.epoch === source.epoch;

export const isPastDeadline = (source: Source, now: number): boolean =>
  source.marks.save !== 0 && now - source.marks.save >= source.parameters["switchover-deadline"];
