/** What a device at the source has answered. */
import { configStream, dataStream, type Failure, VFIO_CONFIG_BYTES_MAX, VFIO_STREAM_BYTES_MAX } from "@godwit/protocol";
import * as Budget from "./budget.ts";
import { deviceFailure, isInPrecopy, OPEN_TRIES } from "./saving-device.ts";
import { type Arrived, type DeviceOp, fail, type Saving, type SavingDevice, type SavingEvent } from "./saving-state.ts";
import * as Slices from "./slices.ts";

/** A device that does not go where it shall is asked again, ms. */
const AGAIN_MS = 200;
/** While the guest is in precopy a device is asked so often for what is new, ms. */
const INFO_MS = 50;

type Answer = Extract<SavingEvent, { readonly device: number }>;

export const answered = (saving: Saving, device: SavingDevice, event: Answer, now: number): void => {
  const { busy } = device;
  if (event._tag === "Arrived") Budget.keep(saving, device, event.ms, now);
  if (event._tag === "Arrived" && device.busy?._tag === "Reset") device.stateLost = true;
  device.busy = null;
  switch (event._tag) {
    case "Opened":
      device.features = event.features;
      device.state = event.state;
      device.switchoverMs = event.switchoverMs;
      device.failures = 0;
      return;
    case "Arrived":
      if (busy?._tag === "Reset") device.stateLost = true;
      return arrived(device, event, now);
    case "Info":
      device.initialBytes = event.initialBytes ?? 0;
      device.dirtyBytes = event.dirtyBytes ?? 0;
      device.stopCopyBytes = event.stopCopyBytes ?? 0;
      device.nextInfoAt = now + INFO_MS;
      // Who cannot tell is read again to see.
      device.drained = event.initialBytes !== null && device.initialBytes + device.dirtyBytes === 0;
      device.tellsBytes ||= event.initialBytes !== null;
      noteInitialEnd(saving, device, event.initialBytes);
      return;
    case "Read":
      return wasRead(saving, device, event, now);
    case "ConfigRead":
      if (event.bytes > VFIO_CONFIG_BYTES_MAX) {
        const reason = `its configuration space has ${event.bytes} bytes, at most ${VFIO_CONFIG_BYTES_MAX} are moved`;
        return fail(saving, deviceFailure(device, "read the configuration space", reason));
      }
      device.config = { bytes: event.bytes, digest: event.digest };
      Slices.append(saving.slices, configStream(saving.devices.indexOf(device)), event.bytes);
      return;
    case "OpFailed":
      return opFailed(saving, device, busy, event.state, event.failure, now);
  }
};

const arrived = (device: SavingDevice, { state, ms, at }: Arrived, now: number): void => {
  device.arcs.push({ from: device.state, to: state, ms, ...(at === undefined ? {} : { at }) });
  if (state === "PRE_COPY") {
    device.nextInfoAt = now;
    device.drained = false;
  }
  device.state = state;
  device.failures = 0;
};

const wasRead = (
  saving: Saving,
  device: SavingDevice,
  event: Extract<SavingEvent, { _tag: "Read" }>,
  now: number,
): void => {
  const stream = dataStream(saving.devices.indexOf(device));
  if (event.bytes > 0) {
    Slices.append(saving.slices, stream, event.bytes);
    device.digest = event.digest;
    device.initialBytes = Math.max(0, device.initialBytes - event.bytes);
    device.stopCopyBytes = Math.max(0, device.stopCopyBytes - event.bytes);
    // Whether the initial data ends here only the device knows.
    if (isInPrecopy(device) && device.initialEnd === null && device.initialBytes === 0) device.nextInfoAt = now;
    if (Slices.streamOf(saving.slices, stream).end > VFIO_STREAM_BYTES_MAX)
      fail(saving, deviceFailure(device, "read the device", "its stream has no end"));
    return;
  }
  if (device.state === "STOP_COPY") {
    device.ended = true;
    device.dirtyBytes = 0;
    device.stopCopyBytes = 0;
    return;
  }
  device.drained = true;
  device.nextInfoAt = now + INFO_MS;
  // A provider that cannot tell its initial bytes has given them with its first pass.
  if (!device.tellsBytes) device.initialEnd ??= Slices.streamOf(saving.slices, stream).end;
};

/** The initial data ends where the device says that none is left (uAPI: initial_bytes falls to 0 as it is read). */
const noteInitialEnd = (saving: Saving, device: SavingDevice, initialBytes: number | null): void => {
  if (initialBytes !== 0 || device.initialEnd !== null) return;
  device.initialEnd = Slices.streamOf(saving.slices, dataStream(saving.devices.indexOf(device))).end;
};

const opFailed = (
  saving: Saving,
  device: SavingDevice,
  op: DeviceOp | null,
  state: SavingDevice["state"] | null,
  failure: Failure,
  now: number,
): void => {
  if (state !== null && state !== device.state) {
    if (op?._tag === "Arc") device.arcs.push({ from: device.state, to: state, ms: now - device.busySince });
    device.state = state;
  }
  device.failures++;
  device.nextTryAt = now + AGAIN_MS;
  // It may be on its way.
  if (op?._tag === "Open" && device.failures < OPEN_TRIES) return;
  // Counters are a luxury: a device that cannot tell them is read all the same.
  if (op?._tag === "Info") {
    device.nextInfoAt = now + INFO_MS;
    device.failures = 0;
    return;
  }
  fail(saving, failure);
};
