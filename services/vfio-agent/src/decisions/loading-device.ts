/** What one device at the destination shall do next. */
import type { Loading, LoadingDevice, LoadOp } from "./loading-state.ts";
import { towardsRunning } from "./peers.ts";
import * as Reassembly from "./reassembly.ts";

/** What one write gives a device, bytes: fewer round trips, and no long wait for its acknowledgement. */
const WRITE_BYTES_MAX = 1024 ** 2;
/** A device that is not there is asked for again, so often, while its socket may be coming. */
export const OPEN_TRIES = 5;
/** A device that does not start with its guest is asked so often before it is reset, and so often in all before the guest goes on without it. */
const START_TRIES = 3;
const GIVE_UP_TRIES = 6;

/** null: nothing for now. Asked only of a device that is free. */
export const nextOp = (loading: Loading, index: number, now: number): LoadOp | null => {
  const device = loading.devices[index]!;
  if (loading.phase === "Running" || loading.phase === "Discarded") return null;
  if (device.features === null) return mayOpen(loading, device, now) ? { _tag: "Open" } : null;
  switch (loading.phase) {
    case "Opening":
      return toResuming(device, now);
    case "Ready":
      return loading.failure === null ? loadOp(loading, index) : null;
    case "Starting":
      return startOp(loading, device, now);
    case "Discarding":
      return discardOp(device);
    case "Loaded":
      return null;
  }
};

const mayOpen = (loading: Loading, device: LoadingDevice, now: number): boolean =>
  now >= device.nextTryAt && (loading.phase === "Discarding" ? !isDiscarded(device) : device.failures < OPEN_TRIES);

/** A device in RESUMING has half of somebody's stream in it: only a reset makes it take another one. */
const toResuming = (device: LoadingDevice, now: number): LoadOp | null => {
  if (now < device.nextTryAt) return null;
  if (device.state === "RESUMING") return isReady(device) ? null : { _tag: "Reset" };
  return device.state === "ERROR" ? { _tag: "Reset" } : { _tag: "Arc", to: "RESUMING" };
};

const loadOp = (loading: Loading, index: number): LoadOp | null => {
  const device = loading.devices[index]!;
  if (device.state !== "RESUMING") return null;
  const pieces = Reassembly.take(device.data, WRITE_BYTES_MAX);
  if (pieces.length > 0) return { _tag: "Write", pieces };
  const expected = loading.expected?.[index];
  if (loading.want !== "loaded" || expected === undefined || device.data.written !== expected.bytes) return null;
  if (!device.configLoaded && expected["config-bytes"] > 0) {
    if (loading.configAfterMemory && !loading.memoryLoaded) return null;
    return wholeConfig(device, expected["config-bytes"]);
  }
  device.configLoaded = true;
  return { _tag: "Arc", to: "STOP" };
};

/** The configuration space is loaded after the data, and as a whole. */
const wholeConfig = (device: LoadingDevice, bytes: number): LoadOp | null => {
  let ahead = device.config.next;
  for (let piece = device.config.queue.get(ahead); piece !== undefined; piece = device.config.queue.get(ahead))
    ahead += piece.payload.length;
  return ahead === bytes ? { _tag: "WriteConfig", pieces: Reassembly.take(device.config, bytes) } : null;
};

const startOp = (loading: Loading, device: LoadingDevice, now: number): LoadOp | null => {
  if (isStarted(device) || now < device.nextTryAt) return null;
  if (device.state === "ERROR" || device.failures >= START_TRIES) return { _tag: "Reset" };
  const to = towardsRunning(device, loading.devices, isStarted);
  return to === null ? null : { _tag: "Arc", to };
};

/** What was begun and not finished can only be reset; then it stands still. */
const discardOp = (device: LoadingDevice): LoadOp | null => {
  if (isDiscarded(device)) return null;
  return device.state === "RUNNING" || device.state === "RUNNING_P2P" ? { _tag: "Arc", to: "STOP" } : { _tag: "Reset" };
};

/** It went to RESUMING by our word. */
export const isReady = ({ state, arcs }: LoadingDevice): boolean => state === "RESUMING" && arcs.length > 0;
export const isLoaded = ({ state }: LoadingDevice): boolean => state === "STOP";
/** Where a device is, nobody knows before it was opened and asked. */
export const isStarted = ({ state, failures, features }: LoadingDevice): boolean =>
  features === null ? failures >= OPEN_TRIES : state === "RUNNING" || failures >= GIVE_UP_TRIES;
export const isDiscarded = ({ state, failures, features }: LoadingDevice): boolean =>
  (features !== null && state === "STOP") || failures >= 1;
