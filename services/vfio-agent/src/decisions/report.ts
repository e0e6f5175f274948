/** How the agent stands, in the words of the protocol. */
import {
  configStream,
  dataStream,
  type Incarnation,
  type LoadReport,
  listOfLanes,
  type MigrationId,
  type SaveReport,
  type VfioDeviceInfo,
} from "@godwit/protocol";
import { advises, hasInitialData } from "./loading.ts";
import type { Loading, LoadingDevice } from "./loading-state.ts";
import type { Saving, SavingDevice } from "./saving-state.ts";
import * as Slices from "./slices.ts";

/** Arcs that a report shows, the newest: an attempt has about ten. */
const ARCS_SHOWN = 16;

const header = (session: { readonly migration: string; readonly epoch: number; readonly incarnation: string }) => ({
  migration: session.migration as MigrationId,
  epoch: session.epoch,
  incarnation: session.incarnation as Incarnation,
});

const SAVE_STAGES = {
  Opening: "opening",
  Precopy: "precopy",
  Quiescing: "stopping",
  Stopping: "stopping",
  Stopped: "stopped",
  Resuming: "resuming",
  Resumed: "resumed",
  Discarding: "stopped",
  Discarded: "discarded",
} as const satisfies Record<Saving["phase"], SaveReport["stage"]>;

const savingInfo = (saving: Saving, device: SavingDevice, index: number): VfioDeviceInfo => {
  const data = Slices.streamOf(saving.slices, dataStream(index));
  const config = Slices.streamOf(saving.slices, configStream(index));
  return {
    device: device.device,
    provider: device.provider,
    state: device.state,
    "initial-bytes": device.initialBytes,
    "dirty-bytes": device.dirtyBytes,
    "stop-copy-bytes": device.stopCopyBytes,
    transferred: data.acknowledgedBytes + config.acknowledgedBytes,
    queued: Slices.openBytes(saving.slices, dataStream(index)) + Slices.openBytes(saving.slices, configStream(index)),
    arcs: device.arcs.slice(-ARCS_SHOWN),
    "switchover-ms": device.switchoverMs,
    ...(device.stateLost ? { "state-lost": true } : {}),
    ...(device.initialEnd === null ? {} : { "initial-end": device.initialEnd }),
  };
};

export const saveReportOf = (saving: Saving): SaveReport => ({
  ...header(saving),
  stage: SAVE_STAGES[saving.phase],
  devices: saving.devices.map((device, index) => savingInfo(saving, device, index)),
  bandwidth: saving.meter.bandwidth,
  "parameters-revision": saving.parametersRevision,
  "downtime-limit": saving.parameters["downtime-limit"],
  ...(saving.streams === null ? {} : { streams: saving.streams }),
  ...(saving.failure === null ? {} : { failure: saving.failure }),
});

const LOAD_STAGES = {
  Opening: "opening",
  Ready: "ready",
  Loaded: "loaded",
  Starting: "starting",
  Running: "running",
  Discarding: "loading",
  Discarded: "discarded",
} as const satisfies Record<Loading["phase"], LoadReport["stage"]>;

const loadingInfo = (device: LoadingDevice): VfioDeviceInfo => ({
  device: device.offered.device,
  provider: device.offered.provider,
  state: device.state,
  "initial-bytes": 0,
  "dirty-bytes": 0,
  "stop-copy-bytes": 0,
  transferred: device.data.written + device.config.written,
  queued: device.data.queuedBytes + device.config.queuedBytes,
  "queued-peak": Math.max(device.data.queuedBytesPeak, device.config.queuedBytesPeak),
  arcs: device.arcs.slice(-ARCS_SHOWN),
  "switchover-ms": device.switchoverMs,
  ...(device.stateLost ? { "state-lost": true } : {}),
  ...(device.initialEnd === null ? {} : { "initial-end": device.initialEnd }),
  ...(advises(device) ? { "initial-loaded": hasInitialData(device) } : {}),
});

export const loadReportOf = (loading: Loading): LoadReport => ({
  ...header(loading),
  stage: loading.phase === "Ready" && loading.want === "loaded" ? "loading" : LOAD_STAGES[loading.phase],
  devices: loading.devices.map(loadingInfo),
  ...(loading.refusedPackets === null ? {} : { "refused-packets": { ...loading.refusedPackets } }),
  ...(loading.lanes === null ? {} : { lanes: listOfLanes(loading.lanes) }),
  ...(loading.failure === null ? {} : { failure: loading.failure }),
});
