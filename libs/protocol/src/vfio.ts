/**
 * What is said about VFIO devices: between a side of a migration (RAM sender, loader) and the VFIO agent of its host. Level-triggered
 * like all control: a command says to which stage the devices shall be brought, a report says at which they are.
 *
 *     RAM sender                VFIO agent, source           VFIO agent, destination              loader
 *         |                            |                             |<------ Load: ready ----------|   devices RESUMING
 *         |---- Save: precopy -------->| PRE_COPY                    |------- ready --------------->|
 *         |                            |== slices, in order =========>| written to the device       |
 *         |                            |<========== acknowledged ====|                              |
 *         |                            |-- initial data end: N ----->| loaded it: switchover-ack -->|
 *     guest stops                      |                             |                              |
 *         |---- Save: stopped -------->| PRE_COPY_P2P, STOP_COPY     |                              |
 *         |<--- stopped, saved: streams|== the rest, configuration ==>|                              |
 *     record: switching (manifest: streams) ------------------------------------------------------>|
 *         |                            |                             |<------ Load: loaded ---------|   STOP: the stream was whole
 *         |                            |                             |------- loaded -------------->|   record: destination
 *         |---- Save: discarded ------>| STOP                        |<------ Load: running --------|   RUNNING, then the guest
 */
import * as Schema from "effect/Schema";
import { LaneInfo } from "./direct-lane.ts";
import { Epoch, Incarnation, MigrationId, Name } from "./ids.ts";
import { RefusedPackets } from "./key-agreement.ts";
import { DEVICES_MAX, PACKET_PAGES_MAX, VFIO_CONFIG_BYTES_MAX, VFIO_STREAM_BYTES_MAX } from "./limits.ts";
import { FailureSchema, VfioDeviceInfo } from "./migration-info.ts";
import { Parameters } from "./parameters.ts";

/** A device's name within its guest; equal at both sides. */
export const DeviceName = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/));

/** A model with a handful of faults has some hundred characters. */
const MODEL_CHARS_MAX = 8192;

/** What the source brings of a device; the destination has one of that name, of the same kind. */
export const OfferedDevice = Schema.Struct({
  device: DeviceName,
  provider: Schema.Literals(["simulated", "vfio-user", "kernel"]),
  /** VFIO_MIGRATION_P2P and VFIO_MIGRATION_PRE_COPY; the latter as `x-allow-pre-copy` lets it be. */
  p2p: Schema.Boolean,
  "pre-copy": Schema.Boolean,
  /** It logs what it writes into guest memory. */
  "dirty-logging": Schema.Boolean,
  /** Of a simulated device, as JSON: the destination starts its like. */
  model: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(MODEL_CHARS_MAX))),
});
export type OfferedDevice = typeof OfferedDevice.Type;
export const OfferedDevices = Schema.Array(OfferedDevice).check(Schema.isMaxLength(DEVICES_MAX));

const upTo = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }));
/** A device's streams as they were saved: what the destination must hold, byte for byte (O2). */
export const SavedStreams = Schema.Struct({
  device: DeviceName,
  bytes: upTo(VFIO_STREAM_BYTES_MAX),
  /** crc32 of the data stream, in order. */
  digest: Schema.Natural,
  /** Of the configuration space, which is loaded after the data; 0: there is none. */
  "config-bytes": upTo(VFIO_CONFIG_BYTES_MAX),
  "config-digest": Schema.Natural,
});
export type SavedStreams = typeof SavedStreams.Type;
export const DeviceManifest = Schema.Array(SavedStreams).check(Schema.isMaxLength(DEVICES_MAX));

/** The number by which work items and packets name a device's data, and its configuration space. 0 is the guest's own device state. */
export const dataStream = (device: number): number => 1 + 2 * device;
export const configStream = (device: number): number => 2 + 2 * device;

const command = {
  migration: MigrationId,
  epoch: Epoch,
  guest: Name,
  /** The node at the other end of the migration. */
  peer: Name,
  /** The process that answered first for this attempt: another one knows nothing of it, and must not begin in its middle. Absent: none has yet. */
  agent: Schema.optionalKey(Incarnation),
};

export const VfioCommand = Schema.Union([
  /** To the agent at the source: bring the guest's devices to this stage. `resumed` takes back whatever was begun. */
  Schema.TaggedStruct("Save", {
    ...command,
    stage: Schema.Literals(["precopy", "stopped", "resumed", "discarded"]),
    parameters: Parameters,
    /** How often they have been changed; the report's echo shows that they have arrived. */
    "parameters-revision": Schema.Natural,
    /** Lengths of the guest's RAMBlocks, in the order of the offer: where devices may write by DMA. */
    "block-bytes": Schema.Array(Schema.Natural),
    /** Pages that a packet may hold on its way to the destination; a slice is no longer than they. Absent: as many as fit this side's servers. */
    "packet-pages-max": Schema.optionalKey(
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: PACKET_PAGES_MAX })),
    ),
  }),
  /** To the agent at the destination. */
  Schema.TaggedStruct("Load", {
    ...command,
    stage: Schema.Literals(["ready", "loaded", "running", "discarded"]),
    parameters: Parameters,
    devices: OfferedDevices,
    /** What must be there, from `loaded` on. */
    streams: DeviceManifest,
    /** All of the guest's memory is in place, so configuration spaces may be loaded (`x-migration-load-config-after-iter`). */
    "memory-loaded": Schema.Boolean,
  }),
]);
export type VfioCommand = typeof VfioCommand.Type;
export type SaveStage = Extract<VfioCommand, { _tag: "Save" }>["stage"];
export type LoadStage = Extract<VfioCommand, { _tag: "Load" }>["stage"];

/** Which devices a guest has, and which guest pages they wrote since they were asked last. */
export const VfioQuestion = Schema.Union([
  Schema.TaggedStruct("Describe", { guest: Name }),
  /** Asked again with the same number, the answer is the same: one that was lost costs nothing. `from`: where the answer before ended. */
  Schema.TaggedStruct("DirtyPages", {
    migration: MigrationId,
    epoch: Epoch,
    sync: Schema.Natural,
    from: Schema.Natural,
  }),
]);
export type VfioQuestion = typeof VfioQuestion.Type;
export const VfioAnswer = Schema.Union([
  Schema.TaggedStruct("Devices", { devices: OfferedDevices }),
  Schema.TaggedStruct("DirtyPages", {
    /** Triples (RAMBlock by its place in the offer, first page, pages). */
    runs: Schema.Array(Schema.Natural),
    /** There are more, from here on. */
    next: Schema.NullOr(Schema.Natural),
  }),
]);
export type VfioAnswer = typeof VfioAnswer.Type;

const report = { migration: MigrationId, epoch: Schema.Natural, incarnation: Incarnation };

/** How the agent at the source stands. `unknown`: this process knows nothing of the attempt (it was restarted). */
export const SaveReport = Schema.Struct({
  ...report,
  stage: Schema.Literals(["unknown", "opening", "precopy", "stopping", "stopped", "resuming", "resumed", "discarded"]),
  devices: Schema.Array(VfioDeviceInfo),
  /** Of device state, as far as it was measured, bytes/s; 0: not yet. */
  bandwidth: Schema.Finite,
  "parameters-revision": Schema.Natural,
  /** As it holds now, ms: a device that loads has it for its budget, too. Absent: nothing is known of the attempt. */
  "downtime-limit": Schema.optionalKey(Schema.Natural),
  /** Present once every byte of every device was read. */
  streams: Schema.optionalKey(DeviceManifest),
  failure: Schema.optionalKey(FailureSchema),
});
export type SaveReport = typeof SaveReport.Type;

/** How the agent at the destination stands. */
export const LoadReport = Schema.Struct({
  ...report,
  stage: Schema.Literals(["unknown", "opening", "ready", "loading", "loaded", "starting", "running", "discarded"]),
  devices: Schema.Array(VfioDeviceInfo),
  /** Of a migration with capability `encryption`. */
  "refused-packets": Schema.optionalKey(RefusedPackets),
  /** Of a migration with another `lane` than nats. */
  lanes: Schema.optionalKey(Schema.Array(LaneInfo)),
  failure: Schema.optionalKey(FailureSchema),
});
export type LoadReport = typeof LoadReport.Type;
