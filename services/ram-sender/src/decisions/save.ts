/** The save of one guest: one event in, its effects out. No clock, no randomness, no I/O. */

import * as Bitmap from "@godwit/memory/bitmap";
import { Channels, Handing, Ledger, Pace } from "@godwit/multifd";
import {
  type CheckpointInfo,
  type Failure,
  FILE_ITEM_PAGES_MAX,
  mbpsOf,
  PAGE_BYTES,
  type Parameters,
} from "@godwit/protocol";
import type { Save, SaveEffect, SaveEvent, SaveStep } from "./save-state.ts";

/** A round must write this much before its rate says anything, bytes. */
const MEASURE_BYTES_MIN = 4 * 1024 ** 2;
/** A guest that does not go on is asked again, ms. */
const RESUME_AGAIN_MS = 500;

export const makeSave = (options: {
  readonly id: string;
  readonly guest: string;
  readonly node: string;
  readonly uri: string;
  readonly parameters: Parameters;
  readonly stop: boolean;
  readonly checksums: boolean;
  readonly upload?: boolean;
  readonly now: number;
}): Save => ({
  id: options.id,
  guest: options.guest,
  node: options.node,
  uri: options.uri,
  parameters: options.parameters,
  stop: options.stop,
  checksums: options.checksums,
  upload: options.upload ?? false,
  startedAt: options.now,
  phase: { _tag: "Describing" },
  wasRunning: false,
  paused: false,
  blocks: [],
  ledger: Ledger.make([]),
  channels: Channels.make(options.parameters["multifd-channels"]),
  pace: Pace.make(options.parameters["max-bandwidth"], options.now),
  last: false,
  present: [],
  sums: null,
  fileBytes: 0,
  uploadedBytes: 0,
  failure: null,
  guestEnded: false,
  stoppedAt: 0,
  downtimeMs: 0,
  endedAt: 0,
  workersLostAt: options.now,
  nextCheckAt: 0,
  meter: {
    writtenBytes: 0,
    roundBytes: 0,
    roundStartedAt: options.now,
    bandwidth: 0,
    ackMs: 0,
    leastBytes: Number.POSITIVE_INFINITY,
    leastAt: options.now,
  },
});

type Emit = (effect: SaveEffect) => void;

/** The first effects of a new save. */
export const beginSave: ReadonlyArray<SaveEffect> = [{ _tag: "Local", step: "describe", round: 0 }];

/** Advances `save` (which it owns and changes) by one event. */
export const stepSave = (save: Save, event: SaveEvent, now: number): SaveEffect[] => {
  const effects: SaveEffect[] = [];
  const emit: Emit = (effect) => effects.push(effect);
  handle(save, event, now, emit);
  pump(save, now, emit);
  maybeEndRound(save, now, emit);
  const at = nextWake(save, now);
  if (at !== null) emit({ _tag: "WakeAt", at });
  return effects;
};

const local = (save: Save, step: SaveStep, emit: Emit): void => emit({ _tag: "Local", step, round: save.ledger.round });

const handle = (save: Save, event: SaveEvent, now: number, emit: Emit): void => {
  const { phase } = save;
  if (phase._tag === "Ended") return;
  switch (event._tag) {
    case "Described":
      if (phase._tag === "Describing") described(save, event.blocks, event.running, emit);
      return;
    case "TrackerOpened":
      if (phase._tag === "OpeningTracker") beginRound(save, now, emit);
      return;
    case "GateOpened":
      if (phase._tag !== "Storing" || event.round !== save.ledger.round) return;
      if (isTracked(save)) return local(save, "sync", emit);
      for (const [block, { pages }] of save.blocks.entries()) Ledger.found(save.ledger, block, 0, pages);
      return synced(save, now, emit);
    case "Found":
      if (phase._tag !== "Storing" || event.round !== save.ledger.round) return;
      for (let r = 0; r < event.runs.length; r += 2)
        Ledger.found(save.ledger, event.block, event.runs[r]!, event.runs[r + 1]!);
      return;
    case "Synced":
      if (phase._tag === "Storing" && event.round === save.ledger.round) synced(save, now, emit);
      return;
    case "Stored":
      if (event.round === save.ledger.round) stored(save, event, now);
      return;
    case "Refused":
      return refused(save, event, now, emit);
    case "WorkerUp":
      save.workersLostAt = null;
      return Handing.workerUp(save, event.worker);
    case "WorkerDown":
      Handing.workerDown(save, event.worker);
      if (save.channels.workers.size === 0) save.workersLostAt = now;
      return;
    case "LinkRestored":
      return Handing.linkRestored(save);
    case "Paused":
      if (phase._tag !== "Pausing") return;
      save.phase = { _tag: "SavingDeviceState" };
      return local(save, "save-device-state", emit);
    case "DeviceStateSaved":
      if (phase._tag !== "SavingDeviceState") return;
      // The one round of a guest that is not tracked begins here.
      if (save.ledger.round === 0) return beginRound(save, now, emit);
      save.phase = { _tag: "ShuttingGate", next: "last round" };
      return local(save, "shut-gate", emit);
    case "GateShut":
      if (phase._tag === "ShuttingGate" && event.round === save.ledger.round) gateShut(save, phase.next, now, emit);
      return;
    case "Resumed":
      return resumed(save, now, emit);
    case "Finished":
      if (phase._tag !== "Finishing") return;
      save.fileBytes = event.fileBytes;
      if (!save.upload) return end(save, "completed", now);
      save.phase = { _tag: "Uploading" };
      return local(save, "upload", emit);
    case "PartUploaded":
      save.uploadedBytes += event.bytes;
      return;
    case "Uploaded":
      if (phase._tag === "Uploading") end(save, "completed", now);
      return;
    case "GuestEnded":
      // All of it is in the file already.
      if (phase._tag === "Finishing" || phase._tag === "Uploading") return;
      save.guestEnded = true;
      return fail(save, event.failure, now, emit);
    case "LocalFailed":
      // The guest stands still, and nothing else matters: it is asked again.
      if (event.step === "resume" && phase._tag === "Resuming") {
        save.nextCheckAt = now + RESUME_AGAIN_MS;
        return;
      }
      return fail(save, event.failure, now, emit);
    case "Cancel":
      return fail(
        save,
        { code: "cancelled", actor: "ram-sender", side: "source", step: "save", reason: "the save was cancelled" },
        now,
        emit,
      );
    case "Tick":
      return tick(save, now, emit);
  }
};

/** A guest that stands still all the time needs no tracker. */
const isTracked = (save: Save): boolean => save.wasRunning && !save.stop;

const described = (save: Save, blocks: Save["blocks"], running: boolean, emit: Emit): void => {
  save.blocks = blocks;
  save.wasRunning = running;
  const sizes = blocks.map(({ pages }) => pages);
  save.ledger = Ledger.make(sizes, FILE_ITEM_PAGES_MAX);
  save.present = sizes.map((pages) => Bitmap.make(pages));
  save.sums = save.checksums ? sizes.map((pages) => new Uint32Array(pages)) : null;
  if (isTracked(save)) {
    save.phase = { _tag: "OpeningTracker" };
    return local(save, "open-tracker", emit);
  }
  save.last = true;
  if (running) return pause(save, emit);
  save.phase = { _tag: "SavingDeviceState" };
  local(save, "save-device-state", emit);
};

const pause = (save: Save, emit: Emit): void => {
  save.phase = { _tag: "Pausing" };
  // From here on it may stand still, whatever becomes of the step.
  save.paused = true;
  local(save, "pause", emit);
};

const beginRound = (save: Save, now: number, emit: Emit): void => {
  save.phase = { _tag: "Storing", scanning: true };
  Handing.beginRound(save);
  save.meter.roundBytes = 0;
  save.meter.roundStartedAt = now;
  local(save, "open-gate", emit);
};

const synced = (save: Save, now: number, emit: Emit): void => {
  const { ledger, meter, parameters } = save;
  Ledger.foundAll(ledger);
  save.phase = { _tag: "Storing", scanning: false };
  if (save.last) return;
  const remaining = Ledger.remainingBytes(ledger);
  const limit = parameters["downtime-limit"];
  // Where nothing but zeros was written no bandwidth is known.
  if (remaining === 0 || (meter.bandwidth > 0 && (remaining * 1000) / meter.bandwidth <= limit)) {
    save.stoppedAt = now;
    return pause(save, emit);
  }
  if (remaining < meter.leastBytes) {
    meter.leastBytes = remaining;
    meter.leastAt = now;
  }
  const patience = parameters["stall-timeout"];
  if (patience === 0 || now - meter.leastAt < patience) return;
  const reason = `the guest writes faster than the checkpoint is written: no round began with less than ${meter.leastBytes} bytes for ${patience} ms; give it a longer downtime-limit, or save it with --stop`;
  fail(save, { code: "stalled", actor: "ram-sender", side: "source", step: "save", reason }, now, emit);
};

const isStoring = ({ phase }: Save): boolean => phase._tag === "Storing";

const pump = (save: Save, now: number, emit: Emit): void => {
  if (!isStoring(save)) return;
  const { ledger, pace } = save;
  while (Ledger.hasWork(ledger)) {
    if (!save.last && !Pace.maySpend(pace, now)) return;
    const handed = Handing.next(save, now);
    if (handed === null) return;
    if (!save.last) Pace.spend(pace, handed.item.bytes);
    emit({ _tag: "Dispatch", ...handed });
  }
};

/** A worker has written an item's pages: what it found zero is not in the file. */
const stored = (save: Save, event: Extract<SaveEvent, { _tag: "Stored" }>, now: number): void => {
  const { meter, ledger } = save;
  const outstanding = ledger.outstanding.get(event.item);
  // An answer that does not fit its item is nobody's.
  if (outstanding === undefined || outstanding.work.kind !== "pages") return;
  const { work } = outstanding;
  if (event.zeroMap.length !== (work.pages + 7) >>> 3) return;
  if (save.sums !== null && event.sums.length !== work.pages) return;
  const item = Ledger.applied(ledger, event.item);
  if (item === null) return;
  Channels.leaveWindow(save.channels, item);
  const zeros = note(save, work, event);
  const bytes = (work.pages - zeros) * PAGE_BYTES;
  meter.writtenBytes += bytes;
  meter.roundBytes += bytes;
  Pace.refund(save.pace, item.bytes - bytes);
  meter.ackMs = Handing.smoothed(meter.ackMs, now - item.firstSentAt);
  const elapsed = now - meter.roundStartedAt;
  const rate = elapsed > 0 ? (meter.roundBytes * 1000) / elapsed : 0;
  if (meter.roundBytes >= MEASURE_BYTES_MIN || rate > meter.bandwidth) meter.bandwidth = rate;
};

/** Keeps which pages are in the file, and their sums. Returns how many are zero. */
const note = (
  save: Save,
  work: Ledger.PagesWork,
  { zeroMap, sums }: { readonly zeroMap: Uint8Array; readonly sums: Uint32Array },
): number => {
  const present = save.present[work.block]!;
  const kept = save.sums?.[work.block];
  let at = 0;
  let zeros = 0;
  for (let r = 0; r < work.runs.length; r += 2) {
    const first = work.runs[r]!;
    const end = first + work.runs[r + 1]!;
    Bitmap.setRange(present, first, end - first);
    for (let page = first; page < end; page++, at++) {
      if (kept !== undefined) kept[page] = sums[at]!;
      if ((zeroMap[at >>> 3]! & (1 << (at & 7))) === 0) continue;
      Bitmap.clearRange(present, page, 1);
      zeros++;
    }
  }
  return zeros;
};

const refused = (save: Save, event: Extract<SaveEvent, { _tag: "Refused" }>, now: number, emit: Emit): void => {
  if (event.round !== save.ledger.round) return;
  const item = Handing.refused(save, event.item, now);
  if (item === null) return;
  if (item.refusals < Handing.FILE.refusalsMax) return Handing.again(save, item);
  const reason = `multifd workers of node ${save.node} have refused one item ${item.refusals} times: ${event.reason}`;
  fail(
    save,
    { code: "checkpoint-failed", actor: "ram-sender", side: "source", step: "write pages", reason },
    now,
    emit,
  );
};

const maybeEndRound = (save: Save, _now: number, emit: Emit): void => {
  const { phase, ledger } = save;
  if (phase._tag !== "Storing" || phase.scanning || !Ledger.isDone(ledger)) return;
  save.phase = { _tag: "ShuttingGate", next: save.last ? "finish" : "round" };
  local(save, "shut-gate", emit);
};

const gateShut = (save: Save, next: "round" | "last round" | "finish", now: number, emit: Emit): void => {
  switch (next) {
    case "last round":
      save.last = true;
      return beginRound(save, now, emit);
    case "round":
      return beginRound(save, now, emit);
    case "finish":
      emit({ _tag: "CloseTracker" });
      if (save.wasRunning && !save.stop) return resume(save, emit);
      return finish(save, emit);
  }
};

const resume = (save: Save, emit: Emit): void => {
  save.phase = { _tag: "Resuming" };
  local(save, "resume", emit);
};

const finish = (save: Save, emit: Emit): void => {
  save.phase = { _tag: "Finishing" };
  local(save, "finish", emit);
};

const resumed = (save: Save, now: number, emit: Emit): void => {
  if (save.phase._tag !== "Resuming") return;
  save.paused = false;
  save.downtimeMs = save.stoppedAt === 0 ? 0 : now - save.stoppedAt;
  if (save.failure !== null) return end(save, "failed", now);
  finish(save, emit);
};

const end = (save: Save, outcome: "completed" | "failed", now: number): void => {
  save.phase = { _tag: "Ended", outcome };
  save.endedAt = now;
};

/** The first reason stays. The guest goes on, if it ran; the file is nobody's. */
const fail = (save: Save, failure: Failure, now: number, emit: Emit): void => {
  if (save.failure !== null && !save.guestEnded) return;
  save.failure ??= failure;
  emit({ _tag: "Abandon" });
  // Stopped by an operator's wish it stays so only once the save has succeeded.
  if (save.paused && !save.guestEnded) return resume(save, emit);
  end(save, "failed", now);
};

const tick = (save: Save, now: number, emit: Emit): void => {
  if (save.phase._tag === "Resuming") {
    if (save.nextCheckAt !== 0 && now >= save.nextCheckAt) {
      save.nextCheckAt = 0;
      local(save, "resume", emit);
    }
    return;
  }
  const { parameters, stoppedAt, workersLostAt } = save;
  const failed = (code: Failure["code"], reason: string): void =>
    fail(save, { code, actor: "ram-sender", side: "source", step: "save", reason }, now, emit);
  // Stopped by an operator's wish it may stand still for as long as it takes.
  if (save.paused && stoppedAt !== 0 && now - stoppedAt > parameters["switchover-deadline"])
    return failed(
      "switchover-deadline",
      `the guest has stood still for ${now - stoppedAt} ms and the checkpoint is not written`,
    );
  if (parameters["migration-deadline"] !== 0 && now - save.startedAt > parameters["migration-deadline"])
    return failed("migration-deadline", `the save has taken ${now - save.startedAt} ms`);
  if (isStoring(save) && workersLostAt !== null && now - workersLostAt >= Handing.FILE.workersLostMs)
    return failed("workers-lost", `node ${save.node} has had no multifd worker for ${Handing.FILE.workersLostMs} ms`);
  if (!isStoring(save)) return;
  Handing.takeBackLateCopies(save, now, save.meter.ackMs);
};

const nextWake = (save: Save, now: number): number | null => {
  if (save.phase._tag === "Ended") return null;
  const pays =
    isStoring(save) && !save.last && Ledger.hasWork(save.ledger) ? Pace.payday(save.pace) : now + Handing.FILE.checkMs;
  return Math.max(now + 1, Math.min(now + Handing.FILE.checkMs, pays));
};

const STATUS = {
  Describing: "setup",
  OpeningTracker: "setup",
  Storing: "active",
  ShuttingGate: "active",
  Pausing: "device",
  SavingDeviceState: "device",
  Resuming: "device",
  Finishing: "active",
  Uploading: "active",
} as const;

const statusOf = ({ phase, last, failure }: Save): CheckpointInfo["status"] => {
  if (phase._tag === "Ended") {
    if (phase.outcome === "completed") return "completed";
    return failure?.code === "cancelled" ? "cancelled" : "failed";
  }
  const isWritten = phase._tag === "Finishing" || phase._tag === "Uploading";
  return last && !isWritten ? "device" : STATUS[phase._tag];
};

const contentOf = (present: Save["present"], pages: number) => {
  const normal = present.reduce((sum, bitmap) => sum + Bitmap.count(bitmap), 0);
  return { normal, zero: pages - normal };
};

export const infoOfSave = (save: Save, now: number): CheckpointInfo => {
  const pages = save.blocks.reduce((sum, block) => sum + block.pages, 0);
  const isOver = save.phase._tag === "Ended";
  const totalMs = (isOver ? save.endedAt : now) - save.startedAt;
  const isWhole = save.phase._tag === "Ended" && save.phase.outcome === "completed";
  return {
    id: save.id as CheckpointInfo["id"],
    what: "save",
    guest: save.guest,
    node: save.node,
    uri: save.uri,
    status: statusOf(save),
    "total-time": totalMs,
    downtime: save.downtimeMs,
    total: pages * PAGE_BYTES,
    remaining: isOver ? 0 : Ledger.remainingBytes(save.ledger),
    "dirty-sync-count": save.ledger.round,
    transferred: save.meter.writtenBytes,
    mbps: mbpsOf(save.meter.writtenBytes, totalMs),
    ...(save.upload ? { uploaded: save.uploadedBytes } : {}),
    ...(isWhole
      ? {
          ...contentOf(save.present, pages),
          "file-bytes": save.fileBytes,
          checksums: save.checksums ? ("written" as const) : ("none" as const),
        }
      : {}),
    ...(save.failure === null ? {} : { error: save.failure }),
  };
};
