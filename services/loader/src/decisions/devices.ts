/**
 * The guest's VFIO devices, as the loader has them led by the VFIO agent of its host: to RESUMING before anything arrives, to STOP when
 * every byte that the record promises is in them, to RUNNING once the record says that the guest is ours.
 */
import type { Failure, LoadReport, LoadStage, SavedStreams, SwitchoverAckInfo } from "@godwit/protocol";
import * as AgentLink from "@godwit/vfio/agent-link";
import type { Destination, DestinationEffect } from "./destination-state.ts";
import * as Fence from "./fence.ts";

type Emit = (effect: DestinationEffect) => void;

/** An agent that is silent for so long is lost, ms: a host that was cut off for half a minute comes back. */
const SILENT_MS = 45_000;
/** Devices that do not start, or do not go, keep the guest waiting no longer than this, ms. */
const GIVE_UP_MS = 10_000;

export interface Devices extends AgentLink.AgentLink<LoadStage, LoadReport> {
  /** The agent was told that all memory is here. */
  knowsMemory: boolean;
}

export const make = (): Devices => ({
  ...AgentLink.make<LoadStage, LoadReport>("destination"),
  knowsMemory: false,
});

export const holdsMemory = ({ promise, fence }: Destination): boolean =>
  promise !== null && Fence.holds(fence, promise.manifest);

/** Configuration spaces may wait for this (`x-migration-load-config-after-iter`), and the guest stands still: it is said at once. */
export const memoryIsHere = (devices: Devices | null, emit: Emit): void => {
  if (devices === null || devices.knowsMemory) return;
  devices.knowsMemory = true;
  emit({ _tag: "TellAgent", stage: "loaded" });
};

export const lead = (destination: Destination, stage: LoadStage, now: number, emit: Emit): void => {
  if (destination.devices === null) return;
  AgentLink.lead(destination.devices, stage, now);
  destination.devices.knowsMemory = holdsMemory(destination);
  emit({ _tag: "TellAgent", stage });
};

export const reported = (devices: Devices, report: LoadReport, now: number): Failure | null =>
  AgentLink.reported(devices, report, ["running", "discarded"], now);

export const isAt = (devices: Devices | null, stage: LoadReport["stage"]): boolean =>
  devices === null || AgentLink.isAt(devices, stage);

export const isOverdue = (devices: Devices, now: number): boolean => now - devices.wantedSince >= GIVE_UP_MS;

/** Says the command again while it is not followed; a failure when nobody answers for too long. */
export const tick = (destination: Destination, now: number, emit: Emit): Failure | null => {
  const { devices, phase } = destination;
  if (devices === null || devices.want === null) return null;
  const stage = AgentLink.tellDue(devices, now);
  if (stage !== null) emit({ _tag: "TellAgent", stage });
  const waits = phase._tag === "PreparingDevices" || phase._tag === "Ready";
  return waits ? AgentLink.silence(devices, SILENT_MS, now) : null;
};

export const nextWake = (devices: Devices): number | null => AgentLink.nextTellAt(devices);

/** What the record promises of the devices, in the order of the offer. */
export const promisedStreams = ({ promise }: Destination): ReadonlyArray<SavedStreams> =>
  promise?.manifest.streams ?? [];

/** Capability `switchover-ack`: the devices that advised it are those that both sides can precopy. */
export const switchoverAckOf = (devices: Devices): SwitchoverAckInfo | null => {
  const advised = devices.report?.devices.filter((info) => info["initial-loaded"] !== undefined) ?? [];
  if (devices.report === null || devices.report.stage === "opening") return null;
  return {
    advised: advised.length,
    pending: advised.filter((info) => info["initial-loaded"] === false).map(({ device }) => device),
  };
};
