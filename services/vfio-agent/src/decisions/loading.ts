/** The agent at the destination: one event in, its effects out. No clock, no randomness, no I/O. */
import {
  type Failure,
  type LoadStage,
  type OfferedDevice,
  PAGE_BYTES,
  type Parameters,
  type SavedStreams,
  VFIO_CONFIG_BYTES_MAX,
} from "@godwit/protocol";
import { isDiscarded, isLoaded, isReady, isStarted, nextOp, OPEN_TRIES } from "./loading-device.ts";
import type { Loading, LoadingDevice, LoadingEffect, LoadingEvent, LoadOp, LoadPhase } from "./loading-state.ts";
import * as Reassembly from "./reassembly.ts";

type Emit = (effect: LoadingEffect) => void;

const REPORT_MS = 100;
/** A device that does not go where it shall is asked again, ms. */
const AGAIN_MS = 200;

export const makeLoading = (options: {
  readonly migration: string;
  readonly epoch: number;
  readonly guest: string;
  readonly incarnation: string;
  readonly parameters: Parameters;
  readonly configAfterMemory: boolean;
  readonly devices: ReadonlyArray<OfferedDevice>;
  readonly want: LoadStage;
  readonly now: number;
}): Loading => {
  const buffers = options.parameters["x-migration-max-queued-buffers"];
  const bytes = options.parameters["x-migration-max-queued-bytes"];
  return {
    migration: options.migration,
    epoch: options.epoch,
    guest: options.guest,
    incarnation: options.incarnation,
    parameters: options.parameters,
    downtimeLimitMs: options.parameters["downtime-limit"],
    configAfterMemory: options.configAfterMemory,
    want: options.want,
    phase: "Opening",
    devices: options.devices.map((offered) => ({
      offered,
      features: null,
      state: "RUNNING",
      busy: null,
      busySince: 0,
      data: Reassembly.make(buffers, bytes),
      config: Reassembly.make(VFIO_CONFIG_BYTES_MAX / PAGE_BYTES, VFIO_CONFIG_BYTES_MAX),
      digest: 0,
      configLoaded: false,
      initialEnd: null,
      arcs: [],
      stateLost: false,
      switchoverMs: 0,
      failures: 0,
      nextTryAt: 0,
    })),
    expected: null,
    memoryLoaded: false,
    refusedPackets: null,
    lanes: options.parameters.lane === "nats" ? null : new Map(),
    failure: null,
    nextReportAt: options.now + REPORT_MS,
  };
};

/** Advances `loading` (which it owns and changes) by one event. */
export const step = (loading: Loading, event: LoadingEvent, now: number): LoadingEffect[] => {
  const effects: LoadingEffect[] = [];
  const emit: Emit = (effect) => effects.push(effect);
  const { phase, failure } = loading;
  const pending = pendingAcks(loading).length;
  handle(loading, event, now, emit);
  checkBudget(loading, now);
  for (let next = phaseAfter(loading); next !== null; next = phaseAfter(loading)) {
    loading.phase = next;
    for (const device of loading.devices) device.failures = 0;
  }
  for (let index = 0; index < loading.devices.length; index++) begin(loading, index, now, emit);
  const hasNews = loading.phase !== phase || loading.failure !== failure || pendingAcks(loading).length !== pending;
  if (hasNews) emit({ _tag: "Report" });
  if (!isOver(loading)) emit({ _tag: "WakeAt", at: nextWake(loading, now) });
  return effects;
};

const isOver = ({ phase }: Loading): boolean => phase === "Running" || phase === "Discarded";

const nextWake = (loading: Loading, now: number): number => {
  let at = loading.nextReportAt;
  for (const device of loading.devices) {
    if (device.busy === null && device.nextTryAt > now) at = Math.min(at, device.nextTryAt);
    if (loading.failure === null && isFinding(loading, device)) at = Math.min(at, budgetEndsAt(loading, device) + 1);
  }
  return Math.max(now, at);
};

const handle = (loading: Loading, event: LoadingEvent, now: number, emit: Emit): void => {
  switch (event._tag) {
    case "Wanted":
      return wanted(loading, event);
    case "Slice":
      return slice(loading, event, emit);
    case "LimitTold":
      loading.downtimeLimitMs = event.downtimeLimitMs;
      return;
    case "InitialEnds":
      for (const device of loading.devices) if (device.offered.device === event.device) device.initialEnd = event.at;
      return;
    case "Tick":
      if (now < loading.nextReportAt) return;
      loading.nextReportAt = now + REPORT_MS;
      return emit({ _tag: "Report" });
    default:
      return answered(loading, loading.devices[event.device]!, event, now, emit);
  }
};

const ORDER = ["ready", "loaded", "running"] as const;

/** Commands only lead on: one that is behind what is wanted already came late. Discarding ends it, unless the devices may run. */
const wanted = (loading: Loading, event: Extract<LoadingEvent, { _tag: "Wanted" }>): void => {
  if (loading.want === "discarded") return;
  if (event.memoryLoaded) loading.memoryLoaded = true;
  if (event.stage === "discarded") {
    if (loading.want !== "running") loading.want = "discarded";
    return;
  }
  if (ORDER.indexOf(event.stage) < ORDER.indexOf(loading.want)) return;
  loading.want = event.stage;
  if (event.stage === "loaded") loading.expected ??= event.streams;
};

const slice = (loading: Loading, event: Extract<LoadingEvent, { _tag: "Slice" }>, emit: Emit): void => {
  const device = loading.devices[(event.stream - 1) >> 1];
  // Before the device can take it, and after it has loaded: it comes again, or is late.
  if (device === undefined || event.stream === 0 || loading.phase !== "Ready") return;
  const stream = event.stream % 2 === 1 ? device.data : device.config;
  const verdict = Reassembly.offer(stream, event.piece);
  if (verdict === "written") emit({ _tag: "Acknowledge", items: [event.piece.item] });
  if (verdict === "torn") fail(loading, deviceFailure(device, "put the stream in order", "two cuts of one stream"));
};

type Answer = Exclude<Extract<LoadingEvent, { readonly device: number }>, { _tag: "InitialEnds" }>;

const answered = (loading: Loading, device: LoadingDevice, event: Answer, now: number, emit: Emit): void => {
  const { busy } = device;
  device.busy = null;
  switch (event._tag) {
    case "Opened":
      device.features = event.features;
      device.state = event.state;
      device.switchoverMs = event.switchoverMs;
      device.failures = 0;
      return;
    case "Arrived": {
      const { state, ms, at } = event;
      if (busy?._tag === "Reset" && loading.phase === "Starting") device.stateLost = true;
      if (loading.phase === "Ready" && state === "STOP") keepBudget(loading, device, ms);
      if (device.state !== state)
        device.arcs.push({ from: device.state, to: state, ms, ...(at === undefined ? {} : { at }) });
      device.state = state;
      return;
    }
    case "Written":
      if (busy?._tag !== "Write") return;
      device.digest = event.digest;
      // Nothing is taken while a write goes on; the bytes themselves are gone by now.
      device.data.written = device.data.next;
      return emit({ _tag: "Acknowledge", items: busy.pieces.map(({ item }) => item) });
    case "ConfigWritten":
      if (busy?._tag !== "WriteConfig") return;
      device.configLoaded = true;
      device.config.written = device.config.next;
      checkConfig(loading, device, event.digest);
      return emit({ _tag: "Acknowledge", items: busy.pieces.map(({ item }) => item) });
    case "OpFailed":
      return opFailed(loading, device, busy, event, now);
  }
};

const opFailed = (
  loading: Loading,
  device: LoadingDevice,
  op: LoadOp | null,
  event: Extract<LoadingEvent, { _tag: "OpFailed" }>,
  now: number,
): void => {
  if (event.state !== null && event.state !== device.state) {
    if (op?._tag === "Arc")
      device.arcs.push({ from: device.state, to: event.state, ms: Math.max(0, now - device.busySince) });
    device.state = event.state;
  }
  device.failures++;
  device.nextTryAt = now + AGAIN_MS;
  // What cannot be discarded is gone, or is led to STOP by whoever has it next.
  if (loading.phase === "Discarding") return;
  // It may be on its way.
  if (op?._tag === "Open" && device.failures < OPEN_TRIES) return;
  fail(loading, event.failure);
};

/** It looks whether its stream was whole, which takes as long as the device takes to load it. */
const isFinding = ({ phase }: Loading, { busy }: LoadingDevice): boolean =>
  phase === "Ready" && busy?._tag === "Arc" && busy.to === "STOP";

const budgetEndsAt = ({ downtimeLimitMs }: Loading, { busySince }: LoadingDevice): number =>
  busySince + downtimeLimitMs;

/** A device that does not answer has overrun its budget as well. */
const checkBudget = (loading: Loading, now: number): void => {
  for (const device of loading.devices)
    if (isFinding(loading, device)) keepBudget(loading, device, now - device.busySince);
};

const keepBudget = (loading: Loading, device: LoadingDevice, ms: number): void => {
  const budget = loading.downtimeLimitMs;
  if (ms <= budget) return;
  const reason = `RESUMING -> STOP takes ${Math.round(ms)} ms, downtime-limit is ${budget} ms`;
  fail(loading, { ...deviceFailure(device, "load the device", reason), code: "device-over-budget" });
};

const deviceFailure = (device: LoadingDevice, step: string, reason: string): Failure => ({
  code: "device-failed",
  actor: "vfio-agent",
  side: "destination",
  step,
  reason: `device ${device.offered.device}: ${reason}`,
});

/** The first reason stays (R10); the loader says what follows. */
const fail = (loading: Loading, failure: Failure): void => {
  loading.failure ??= failure;
};

const begin = (loading: Loading, index: number, now: number, emit: Emit): void => {
  const device = loading.devices[index]!;
  if (device.busy !== null) return;
  const mismatch = mismatchOf(loading, device, index);
  if (mismatch !== null) fail(loading, deviceFailure(device, "check the stream", mismatch));
  const op = nextOp(loading, index, now);
  if (op === null) return;
  device.busy = op;
  device.busySince = now;
  emit({ _tag: "Op", device: index, op });
};

/** What was written must be what the record promises, byte for byte; null while nothing speaks against it. */
const mismatchOf = (loading: Loading, device: LoadingDevice, index: number): string | null => {
  const expected = expectedOf(loading, index);
  if (expected === null || loading.phase !== "Ready" || device.state !== "RESUMING") return null;
  if (expected.device !== device.offered.device) return `the manifest speaks of device ${expected.device} here`;
  if (device.data.next > expected.bytes) return `${device.data.next} bytes came, the source saved ${expected.bytes}`;
  if (device.data.written === expected.bytes && device.digest !== expected.digest)
    return `its crc32 is ${device.digest.toString(16)}, the source saved ${expected.digest.toString(16)}`;
  return null;
};

const checkConfig = (loading: Loading, device: LoadingDevice, digest: number): void => {
  const expected = expectedOf(loading, loading.devices.indexOf(device))?.["config-digest"];
  if (expected === undefined || expected === digest) return;
  const reason = `the crc32 of its configuration space is ${digest.toString(16)}, the source saved ${expected.toString(16)}`;
  fail(loading, deviceFailure(device, "check the configuration space", reason));
};

const expectedOf = (loading: Loading, index: number): SavedStreams | null =>
  loading.expected === null
    ? null
    : (loading.expected[index] ?? { device: "", bytes: 0, digest: 0, "config-bytes": 0, "config-digest": 0 });

const isAt = (loading: Loading, reached: (device: LoadingDevice) => boolean): boolean =>
  loading.devices.every((device) => device.busy === null && reached(device));

const phaseAfter = (loading: Loading): LoadPhase | null => {
  const { phase, want } = loading;
  if (want === "discarded" && phase !== "Discarding" && phase !== "Discarded") return "Discarding";
  if (phase === "Discarding") return isAt(loading, isDiscarded) ? "Discarded" : null;
  // The record was won: there is no way but forward, whatever failed, and whoever was restarted meanwhile.
  if (want === "running" && phase !== "Starting" && phase !== "Running") return "Starting";
  if (phase === "Starting") return isAt(loading, isStarted) ? "Running" : null;
  if (loading.failure !== null) return null;
  if (phase === "Opening") return isAt(loading, isReady) ? "Ready" : null;
  if (phase === "Ready") return want === "loaded" && isAt(loading, isLoaded) ? "Loaded" : null;
  return null;
};

/** Devices whose initial data has not been loaded; the source's counterpart says where it ends. */
export const pendingAcks = (loading: Loading): ReadonlyArray<string> =>
  loading.devices.filter((device) => advises(device) && !hasInitialData(device)).map(({ offered }) => offered.device);

/** A device takes part in switchover-ack when both sides can precopy it. */
export const advises = ({ offered, features }: LoadingDevice): boolean =>
  offered["pre-copy"] && (features === null || features.preCopy);

export const hasInitialData = ({ initialEnd, data }: LoadingDevice): boolean =>
  initialEnd !== null && data.written >= initialEnd;
