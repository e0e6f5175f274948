/** From stopping the guest at the source to hearing that it runs at the destination. */
import { CodecChoice, Ledger } from "@godwit/multifd";
import { DEVICE_STATE_BYTES_MAX, type OwnershipEntry } from "@godwit/protocol";
import * as Devices from "./devices.ts";
import { complete, type Emit, fail, resume, switchingRecord, write } from "./ending.ts";
import { beginRound } from "./precopy.ts";
import { handedOver, isHandedOver, leaveBehind, promiseOf } from "./serving.ts";
import type { Source } from "./source-state.ts";

export const stop = (source: Source, emit: Emit): void => {
  source.phase = { _tag: "Stopping" };
  source.verdictWanted = null;
  emit({ _tag: "Local", step: "pause", round: source.ledger.round });
  emit({ _tag: "Report" });
};

export const paused = (source: Source, now: number, emit: Emit): void => {
  if (source.failure !== null) return resume(source, emit);
  const { devices } = source;
  if (devices === null) return stopped(source, now, emit);
  // The vCPUs first, as QEMU does it: a device must not be asked for what has stopped.
  source.marks.devices = now;
  source.phase = { _tag: "StoppingDevices" };
  Devices.lead(devices, "stopped", now, emit);
  emit({ _tag: "Report" });
};

export const devicesStopped = (source: Source, now: number, emit: Emit): void => {
  if (source.failure === null) stopped(source, now, emit);
};

const stopped = (source: Source, now: number, emit: Emit): void => {
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

/**
 * The last sync comes after the device state was saved: saving may itself write to RAM. Its round has a number of its own (R2). The
 * device state goes at once, and pages as they are found.
 */
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
  source.phase = { _tag: "FinalSync" };
  beginRound(source, now);
  if (source.tracker === "content") Ledger.holdBack(source.ledger);
  Ledger.addDeviceState(source.ledger, bytes);
  if (source.codec !== null) CodecChoice.settle(source.codec);
  emit({ _tag: "Local", step: "sync", round: source.ledger.round });
};

/** Everything the destination still needs is known: promise it in the record, and send what is left of it meanwhile. */
export const finallySynced = (source: Source, emit: Emit): void => {
  if (source.failure !== null) return resume(source, emit);
  const { ledger } = source;
  Ledger.foundAll(ledger);
  if (source.postcopy) leaveBehind(source);
  source.manifest = {
    round: ledger.round,
    items: Ledger.promise(ledger),
    deviceBytes: source.deviceBytes,
    deviceDigest: source.deviceDigest,
    ...(source.missing === null ? {} : { postcopy: promiseOf(source.missing) }),
  };
  source.phase = { _tag: "SavingDevices" };
  devicesSaved(source, emit);
  emit({ _tag: "Report" });
};

/** Goes on once the length of every device's stream is known; what was found of RAM is on its way meanwhile. */
export const devicesSaved = (source: Source, emit: Emit): void => {
  const { devices, manifest } = source;
  if (source.phase._tag !== "SavingDevices" || manifest === null) return;
  if (devices !== null) {
    const streams = devices.report?.streams;
    if (streams === undefined) return;
    source.manifest = { ...manifest, streams };
  }
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
  if (source.phase._tag !== "AwaitingCommit" && source.phase._tag !== "Serving") return;
  if (source.marks.running === 0) source.marks.running = now;
  emit({ _tag: "ReadRecord", op: "confirm", afterMs: 0 });
};

/** `destination` at a revision after our own write cannot be left without us: it may be acted on though it was only read. */
export const confirmed = (source: Source, entry: OwnershipEntry | null | "Unknown", now: number, emit: Emit): void => {
  const isWaiting = source.phase._tag === "AwaitingCommit" || source.phase._tag === "Serving";
  if (!isWaiting || entry === null || entry === "Unknown") return;
  if (isHandedOver(source, entry)) return handedOver(source, entry, now, emit);
  // The guest has moved on, or is about to: nobody claims one whose pages are not all there.
  if (source.phase._tag === "Serving" && entry.record.epoch > source.epoch) complete(source, emit);
};

/** The guest stands still for devices that stop, or while what it still needs is on its way. */
export const isUnderWay = ({ phase }: Source): boolean =>
  phase._tag === "StoppingDevices" ||
  phase._tag === "SavingDevices" ||
  phase._tag === "Switching" ||
  phase._tag === "AwaitingCommit";

/** Counted anew once the devices have stopped: in between an operator may take his time. */
export const isPastDeadline = ({ phase, marks, parameters }: Source, now: number): boolean =>
  now - (phase._tag === "StoppingDevices" ? marks.devices : marks.save) >= parameters["switchover-deadline"];
