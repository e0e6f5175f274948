/** What one device at the source shall do next. */
import { dataStream, type Failure } from "@godwit/protocol";
import { towardsRunning } from "./peers.ts";
import type { DeviceOp, Saving, SavingDevice } from "./saving-state.ts";
import * as Slices from "./slices.ts";

/** What one read asks for, bytes: fewer round trips to a device behind a socket; it is cut into slices afterwards. */
const READ_BYTES_MAX = 1024 ** 2;

export const isInPrecopy = ({ state }: SavingDevice): boolean => state === "PRE_COPY" || state === "PRE_COPY_P2P";

/** `x-allow-pre-copy: off` is for devices, or kernels, whose PRE_COPY is in doubt. */
const usesPrecopy = (saving: Saving, { features }: SavingDevice): boolean =>
  features?.preCopy === true && saving.parameters["x-allow-pre-copy"] === "on";

/** `x-migration-multifd-transfer: off`: one device after the other, over the first channel. */
export const isSideBySide = (saving: Saving): boolean => saving.parameters["x-migration-multifd-transfer"] !== "off";

/** null: nothing for now. Asked only of a device that is free. */
export const nextOp = (saving: Saving, index: number, now: number): DeviceOp | null => {
  const device = saving.devices[index]!;
  if (saving.phase === "Resumed" || saving.phase === "Discarded") return null;
  if (device.features === null) return mayOpen(saving, device, now) ? { _tag: "Open" } : null;
  switch (saving.phase) {
    case "Opening":
      return toRunning(saving, device, now);
    case "Precopy":
      return precopyOp(saving, index, now);
    case "Quiescing":
      if (device.features?.p2p !== true || saving.failure !== null) return null;
      if (device.state === "PRE_COPY") return { _tag: "Arc", to: "PRE_COPY_P2P" };
      return device.state === "RUNNING" ? { _tag: "Arc", to: "RUNNING_P2P" } : null;
    case "Stopping":
      return device.state === "STOP_COPY" || saving.failure !== null ? null : { _tag: "Arc", to: "STOP_COPY" };
    case "Stopped":
      return saving.failure === null ? readOp(saving, index) : null;
    case "Resuming":
      return isResumed(device) ? null : toRunning(saving, device, now);
    case "Discarding":
      return isDiscarded(device) ? null : { _tag: "Arc", to: "STOP" };
  }
};

/** A device that is not there is asked for again, so often, while its socket may be coming. */
export const OPEN_TRIES = 5;

const mayOpen = (saving: Saving, device: SavingDevice, now: number): boolean =>
  now >= device.nextTryAt && (saving.phase === "Discarding" ? !isDiscarded(device) : device.failures < OPEN_TRIES);

/** What a former attempt, or a former life of this agent, left in another state is led back first. */
const toRunning = (saving: Saving, device: SavingDevice, now: number): DeviceOp | null => {
  if (device.state === "RUNNING" || now < device.nextTryAt) return null;
  if (mustReset(device)) return { _tag: "Reset" };
  const to = towardsRunning(device, saving.devices, isResumed);
  return to === null ? null : { _tag: "Arc", to };
};

const precopyOp = (saving: Saving, index: number, now: number): DeviceOp | null => {
  const device = saving.devices[index]!;
  if (saving.failure !== null) return null;
  if (!usesPrecopy(saving, device)) return now >= device.nextInfoAt ? { _tag: "Info" } : null;
  if (device.state === "RUNNING") return { _tag: "Arc", to: "PRE_COPY" };
  if (now >= device.nextInfoAt) return { _tag: "Info" };
  return device.drained || !isTurn(saving, index) ? null : read(saving, index);
};

const readOp = (saving: Saving, index: number): DeviceOp | null => {
  const device = saving.devices[index]!;
  if (!isTurn(saving, index)) return null;
  if (!device.ended) return read(saving, index);
  return device.config === null ? { _tag: "ReadConfig" } : null;
};

/** Device after device: the next one begins when all of the one before is read and has arrived. */
const isTurn = (saving: Saving, index: number): boolean => {
  if (isSideBySide(saving)) return true;
  if (saving.phase === "Precopy") return turnInPrecopy(saving) === index;
  return saving.devices
    .slice(0, index)
    .every(
      (device, before) =>
        device.ended && device.config !== null && Slices.openBytes(saving.slices, dataStream(before)) === 0,
    );
};

/** Initial data first: a device that changes as fast as it is read would keep the others from ever acknowledging theirs. */
const turnInPrecopy = (saving: Saving): number => {
  const hasMore = (device: SavingDevice): boolean => usesPrecopy(saving, device) && !device.drained;
  const first = saving.devices.findIndex((device) => hasMore(device) && device.initialEnd === null);
  return first >= 0 ? first : saving.devices.findIndex(hasMore);
};

/** As much as the destination may have to queue, and no more (R5). */
const read = (saving: Saving, index: number): DeviceOp | null => {
  const bytesMax = Math.min(roomBytes(saving, dataStream(index)), READ_BYTES_MAX);
  if (bytesMax <= 0) return null;
  return { _tag: "Read", offset: Slices.streamOf(saving.slices, dataStream(index)).end, bytesMax };
};

/** The destination's limits, kept here, so that it need not drop anything; also what the ring at the source is long. */
export const windowBytes = ({ parameters, slices }: Saving): number =>
  Math.min(
    parameters["x-migration-max-queued-bytes"],
    parameters["x-migration-max-queued-buffers"] * slices.sliceBytesMax,
  );

/** Short reads make small slices, which count as whole ones. */
const roomBytes = (saving: Saving, stream: number): number => {
  const { parameters, slices } = saving;
  const buffers = parameters["x-migration-max-queued-buffers"] - Slices.streamOf(slices, stream).open.length;
  return Math.min(windowBytes(saving) - Slices.heldBytes(slices, stream), buffers * slices.sliceBytesMax);
};

/** A device that does not go on with its guest is asked so often before it is reset: RUNNING without its state is better than a guest that waits for ever. */
const RESUME_TRIES = 3;
/** After resets that failed as well it is given up, and told; the guest goes on without it. */
const GIVE_UP_TRIES = 6;

/** Where a device is done with resuming, or was given up. One that was not opened may be anywhere. */
export const isResumed = ({ features, state, failures }: SavingDevice): boolean =>
  features === null ? failures >= OPEN_TRIES : state === "RUNNING" || failures >= GIVE_UP_TRIES;
const mustReset = (device: SavingDevice): boolean => device.state === "ERROR" || device.failures >= RESUME_TRIES;

/** A device that is gone with its guest is discarded, too. */
export const isDiscarded = ({ features, state, failures }: SavingDevice): boolean =>
  (features !== null && state === "STOP") || failures >= 1;

export const deviceFailure = (device: SavingDevice, step: string, reason: string): Failure => ({
  code: "device-failed",
  actor: "vfio-agent",
  side: "source",
  step,
  reason: `device ${device.device}: ${reason}`,
});
