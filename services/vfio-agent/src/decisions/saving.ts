/** The agent at the source: one event in, its effects out. No clock, no randomness, no I/O. */
import { Channels, Pace } from "@godwit/multifd";
import { dataStream, PAGE_BYTES, type Parameters, type SavedStreams } from "@godwit/protocol";
import * as Budget from "./budget.ts";
import { answered } from "./saving-answers.ts";
import { isDiscarded, isInPrecopy, isResumed, nextOp } from "./saving-device.ts";
import type { Emit, SavePhase, Saving, SavingDevice, SavingEffect, SavingEvent } from "./saving-state.ts";
import * as Sending from "./sending.ts";
import * as Slices from "./slices.ts";

/** A report at least so often while something moves, ms; changes of stage are told at once. */
const REPORT_MS = 100;

export const makeSaving = (options: {
  readonly migration: string;
  readonly epoch: number;
  readonly guest: string;
  readonly incarnation: string;
  readonly parameters: Parameters;
  readonly parametersRevision: number;
  readonly devices: ReadonlyArray<{ readonly device: string; readonly provider: string }>;
  /** Pages that fit one message of this server. */
  readonly itemPagesMax: number;
  readonly want: Saving["want"];
  readonly now: number;
}): Saving => ({
  migration: options.migration,
  epoch: options.epoch,
  guest: options.guest,
  incarnation: options.incarnation,
  parameters: options.parameters,
  parametersRevision: options.parametersRevision,
  startedAt: options.now,
  want: options.want,
  phase: "Opening",
  phaseSince: options.now,
  devices: options.devices.map(({ device, provider }) => ({
    device,
    provider,
    features: null,
    state: "RUNNING",
    busy: null,
    busySince: 0,
    initialBytes: 0,
    dirtyBytes: 0,
    stopCopyBytes: 0,
    nextInfoAt: 0,
    tellsBytes: false,
    drained: false,
    initialEnd: null,
    digest: 0,
    ended: false,
    config: null,
    arcs: [],
    stateLost: false,
    switchoverMs: 0,
    failures: 0,
    nextTryAt: 0,
  })),
  slices: Slices.make(options.itemPagesMax * PAGE_BYTES),
  channels: Channels.make(options.parameters["multifd-channels"]),
  // The other half is for RAM.
  pace: Pace.make(halfOf(options.parameters), options.now),
  ackMs: 0,
  meter: { since: options.now, bytes: 0, bandwidth: 0 },
  streams: null,
  failure: null,
  nextReportAt: options.now + REPORT_MS,
});

/** Advances `saving` (which it owns and changes) by one event. */
export const step = (saving: Saving, event: SavingEvent, now: number): SavingEffect[] => {
  const effects: SavingEffect[] = [];
  const emit: Emit = (effect) => effects.push(effect);
  const before = saving.phase;
  const failed = saving.failure;
  const arrived = hasAllArrived(saving);
  handle(saving, event, now, emit);
  lead(saving, now);
  Budget.check(saving, now);
  lead(saving, now);
  for (let index = 0; index < saving.devices.length; index++) begin(saving, index, now, emit);
  Sending.pump(saving, now, emit);
  finish(saving, emit);
  const isNews = saving.phase !== before || saving.failure !== failed || hasAllArrived(saving) !== arrived;
  if (isNews) emit({ _tag: "Report" });
  const at = nextWake(saving, now);
  if (at !== null) emit({ _tag: "WakeAt", at });
  return effects;
};

/** The last bytes are counted before the migration ends, and nobody asks any more. */
const hasAllArrived = ({ streams, slices }: Saving): boolean => streams !== null && Slices.isEmpty(slices);

const handle = (saving: Saving, event: SavingEvent, now: number, emit: Emit): void => {
  switch (event._tag) {
    case "Wanted":
      tune(saving, event.parameters, event.parametersRevision);
      return wanted(saving, event.stage);
    case "Applied":
      return Sending.applied(saving, event.items, now);
    case "Refused":
      return Sending.refused(saving, event.items, event.reason, now);
    case "WorkerUp":
      return Sending.workerUp(saving, event.worker);
    case "WorkerDown":
      return Sending.workerDown(saving, event.worker);
    case "GuestGone":
      return wanted(saving, "discarded");
    case "LinkRestored":
      return Sending.linkRestored(saving);
    case "Tick":
      Sending.checkLate(saving, now);
      if (now >= saving.nextReportAt) {
        saving.nextReportAt = now + REPORT_MS;
        emit({ _tag: "Report" });
      }
      return;
    default:
      return answered(saving, saving.devices[event.device]!, event, now);
  }
};

const halfOf = (parameters: Parameters): number => Math.ceil(parameters["max-bandwidth"] / 2);

/** What may change while a migration runs counts from here on; the rest never differs (R9). */
const tune = (saving: Saving, parameters: Parameters, revision: number): void => {
  if (revision <= saving.parametersRevision) return;
  saving.parametersRevision = revision;
  saving.parameters = parameters;
  saving.pace.bytesPerSecond = halfOf(parameters);
};

/**
 * A stage that is behind what was reached already is a command that came late. `resumed` ends it all, and `discarded` even that: the
 * guest is elsewhere then, and no word from before may let a device work here again.
 */
const wanted = (saving: Saving, stage: Saving["want"]): void => {
  if (ORDER.indexOf(stage) > ORDER.indexOf(saving.want)) saving.want = stage;
};
const ORDER: ReadonlyArray<Saving["want"]> = ["precopy", "stopped", "resumed", "discarded"];

/** Begins what the device shall do next, if it is free. */
const begin = (saving: Saving, index: number, now: number, emit: Emit): void => {
  const device = saving.devices[index]!;
  if (device.busy !== null) return;
  const op = nextOp(saving, index, now);
  if (op === null) return;
  device.busy = op;
  device.busySince = now;
  emit({ _tag: "Op", device: index, op });
};

const isAt = (saving: Saving, reached: (device: SavingDevice) => boolean): boolean =>
  saving.devices.every((device) => device.busy === null && reached(device));

/** Moves to the phase that is due. */
const lead = (saving: Saving, now: number): void => {
  for (let next = phaseAfter(saving); next !== null; next = phaseAfter(saving)) {
    saving.phase = next;
    saving.phaseSince = now;
  }
};

const isEnding = ({ phase }: Saving): boolean =>
  phase === "Resuming" || phase === "Resumed" || phase === "Discarding" || phase === "Discarded";

const phaseAfter = (saving: Saving): SavePhase | null => {
  const { phase, want } = saving;
  if (want === "resumed" && phase !== "Resuming" && phase !== "Resumed") return enterEnding(saving, "Resuming");
  if (want === "discarded" && phase !== "Discarding" && phase !== "Discarded") return enterEnding(saving, "Discarding");
  if (phase === "Resuming") return isAt(saving, isResumed) ? "Resumed" : null;
  if (phase === "Discarding") return isAt(saving, isDiscarded) ? "Discarded" : null;
  // A failure waits for the word of the RAM sender.
  if (saving.failure !== null || isEnding(saving)) return null;
  switch (phase) {
    case "Opening":
      return isAt(saving, ({ features, state }) => features !== null && state === "RUNNING") ? "Precopy" : null;
    case "Precopy":
      return want === "stopped" ? "Quiescing" : null;
    case "Quiescing":
      return isAt(saving, isQuiet) ? "Stopping" : null;
    case "Stopping":
      return isAt(saving, ({ state }) => state === "STOP_COPY") ? "Stopped" : null;
    default:
      return null;
  }
};

const enterEnding = (saving: Saving, phase: "Resuming" | "Discarding"): SavePhase => {
  for (const device of saving.devices) {
    device.failures = 0;
    device.nextTryAt = 0;
  }
  return phase;
};

const isQuiet = ({ features, state }: SavingDevice): boolean =>
  features?.p2p !== true || state === "PRE_COPY_P2P" || state === "RUNNING_P2P";

/** Once every byte of every device was read, the manifest of their streams is known. */
const finish = (saving: Saving, emit: Emit): void => {
  if (saving.phase !== "Stopped" || saving.streams !== null) return;
  if (!saving.devices.every(({ ended, config }) => ended && config !== null)) return;
  saving.streams = saving.devices.map(
    (device, index): SavedStreams => ({
      device: device.device,
      bytes: Slices.streamOf(saving.slices, dataStream(index)).end,
      digest: device.digest,
      "config-bytes": device.config!.bytes,
      "config-digest": device.config!.digest,
    }),
  );
  emit({ _tag: "Report" });
};

const isOver = ({ phase }: Saving): boolean => phase === "Resumed" || phase === "Discarded";

const nextWake = (saving: Saving, now: number): number | null => {
  if (isOver(saving)) return null;
  let at = Math.max(now, saving.nextReportAt);
  if (saving.phase === "Precopy" && saving.failure === null)
    for (const device of saving.devices)
      if (device.busy === null && isInPrecopy(device)) at = Math.min(at, Math.max(now, device.nextInfoAt));
  if (saving.phase === "Resuming" || saving.phase === "Opening")
    for (const device of saving.devices) if (device.nextTryAt > now) at = Math.min(at, device.nextTryAt);
  return Sending.nextWake(saving, now, Math.min(at, Budget.endsAt(saving) ?? at));
};
