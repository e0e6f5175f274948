/**
 * The guest's VFIO devices, as the RAM sender has them led by the VFIO agent of its host: to PRE_COPY with the first round, to STOP_COPY
 * once the vCPUs stand still, back to RUNNING before the guest goes on.
 */
import type { Failure, PassReport, SaveReport, SaveStage } from "@godwit/protocol";
import * as AgentLink from "@godwit/vfio/agent-link";
import type { Source, SourceEffect } from "./source-state.ts";

type Emit = (effect: SourceEffect) => void;

/** An agent that is silent for so long while the guest stands still is lost, ms: a switchover is undone by it. */
const SILENT_STOPPED_MS = 3000;
/** The same while the guest runs, ms: a host that was cut off for half a minute comes back, and precopy goes on. */
const SILENT_RUNNING_MS = 45_000;
/** Devices that do not go back to RUNNING keep the guest waiting no longer than this, ms: a machine without a device is better than one that stands still. */
const RELEASE_MS = 10_000;

export interface Devices extends AgentLink.AgentLink<SaveStage, SaveReport> {
  /** They were led back, or given up. */
  isReleased: boolean;
}

export const make = (): Devices => ({ ...AgentLink.make<SaveStage, SaveReport>("source"), isReleased: false });

export const lead = (devices: Devices, stage: SaveStage, now: number, emit: Emit): void => {
  AgentLink.lead(devices, stage, now);
  emit({ _tag: "TellAgent", stage });
};

/** Takes a report in; a failure of the devices, or null. */
export const reported = (devices: Devices, report: SaveReport, now: number): Failure | null =>
  AgentLink.reported(devices, report, ["resumed", "discarded"], now);

export const isAt = (devices: Devices | null, stage: SaveReport["stage"]): boolean =>
  devices === null || AgentLink.isAt(devices, stage);

/** The attempt has begun with the devices, and they must be led back before anything else. */
export const mustRelease = (devices: Devices | null): devices is Devices =>
  devices !== null && devices.want !== null && !devices.isReleased;

const hasArrived = ({ report }: Devices): boolean => report?.devices.every(({ queued }) => queued === 0) === true;

/** What was changed while the migration runs has arrived at the agent. */
const hasParameters = (source: Source, { report }: Devices): boolean =>
  report === null || report["parameters-revision"] === source.parametersRevision;

/** Says the command again while it is not followed; a failure when nobody answers for too long. */
export const tick = (source: Source, now: number, emit: Emit): Failure | null => {
  const { devices, phase } = source;
  if (devices === null || devices.want === null || phase._tag === "Ended") return null;
  const stage = AgentLink.tellDue(devices, now, !hasParameters(source, devices));
  if (stage !== null) emit({ _tag: "TellAgent", stage });
  if (phase._tag === "StoppingDevices" || phase._tag === "SavingDevices")
    return AgentLink.silence(devices, SILENT_STOPPED_MS, now);
  // Once all of the devices' state has arrived, the agent that sent it is needed no more.
  if (phase._tag === "Switching" || phase._tag === "AwaitingCommit")
    return hasArrived(devices) ? null : AgentLink.silence(devices, SILENT_STOPPED_MS, now);
  if (phase._tag === "OpeningTracker" || phase._tag === "Precopy")
    return AgentLink.silence(devices, SILENT_RUNNING_MS, now);
  return null;
};

export const isOverdue = (devices: Devices, now: number): boolean => now - devices.wantedSince >= RELEASE_MS;

/** When the agent must be told again, ms; null: it has done what it was told. */
export const nextWake = (source: Source): number | null =>
  source.devices === null ? null : AgentLink.nextTellAt(source.devices, !hasParameters(source, source.devices));

/** Bytes that the devices still owe. */
export const remainingBytes = (devices: Devices | null): number =>
  (devices?.report?.devices ?? []).reduce(
    (sum, info) => sum + info.queued + (info["stop-copy-bytes"] || info["initial-bytes"] + info["dirty-bytes"]),
    0,
  );

/** Less than this in a device's stream is no load worth sharing the link for, bytes. */
const SHARE_FROM_BYTES = 1024 ** 2;

/** `max-bandwidth` is for both: the agent keeps to half of it, and RAM has the other half while there is device state to move, bytes/s. */
export const paceFor = (devices: Devices | null, maxBandwidth: number): number =>
  remainingBytes(devices) > SHARE_FROM_BYTES ? Math.ceil(maxBandwidth / 2) : maxBandwidth;

/** What of the devices counts for the predicted downtime. */
export const passOf = (devices: Devices | null): Pick<PassReport, "devices"> => {
  if (devices === null) return {};
  const infos = devices.report?.devices ?? [];
  const remaining = remainingBytes(devices);
  // They stop side by side.
  const switchoverMs = infos.reduce((most, info) => Math.max(most, info["switchover-ms"]), 0);
  return { devices: { remaining, bandwidth: devices.report?.bandwidth ?? 0, "switchover-ms": switchoverMs } };
};
