/**
 * The control messages between a coordinator and the two sides of a migration. Both directions are level-triggered: a command
 * states what shall be, a report states what is, either may be lost, doubled or late, and is simply said again until the
 * other side shows that it has arrived. `term` fences commands of an old coordinator (`authority.ts`), `epoch` those of an old attempt.
 *
 *     coordinator          source (RAM sender)            destination (loader)
 *         |-- claim ----------->| record: source, epoch e        |
 *         |<-- claimed, offer --|                                |
 *         |-- prepare --------------------------------------------->| compares the offer with its guest (R9)
 *         |<-- ready, incarnation ----------------------------------|
 *         |-- start ------------>| rounds: items -> workers ====>| packets, acknowledgements
 *         |<-- verdict? ---------|                               |
 *         |-- iterate ---------->|                               |
 *         |-- switch-over ------>| stop, save, last round        |
 *         |                      |-- record: switching --------->| holds all -> record: destination -> runs
 *         |<-- completed --------|<------ running ---------------|
 *         |-- conclude --------->|------- conclude ------------->|
 */
import * as Schema from "effect/Schema";
import { LaneInfo } from "./direct-lane.ts";
import { Epoch, Incarnation, MigrationId, Name } from "./ids.ts";
import { RefusedPackets } from "./key-agreement.ts";
import { BLOCK_BYTES_MAX, BLOCKS_MAX, PAGE_BYTES } from "./limits.ts";
import {
  ChannelInfo,
  FailureSchema,
  MigrationInfo,
  PostcopyInfo,
  RamInfo,
  SwitchoverAckInfo,
  VerifyInfo,
  VfioDeviceInfo,
  XbzrleCacheInfo,
} from "./migration-info.ts";
import { MESSAGE_BYTES_MIN } from "./packet.ts";
import { Parameters } from "./parameters.ts";
import { PROTOCOL } from "./version.ts";
import { OfferedDevices } from "./vfio.ts";
import { Waterfall } from "./waterfall.ts";

/** Of messages and packets together: two sides with different versions refuse each other (R9). */
export const PROTOCOL_VERSION = PROTOCOL.major;

const Term = Schema.Natural;
/** How often the parameters have been changed; absent: never. Its echo shows that they have arrived. */
const ParametersRevision = Schema.Natural;
const CapabilitySet = Schema.Record(Schema.String, Schema.Boolean);

/**
 * `max_payload` of the servers at one side, bytes. Joined clusters may have different ones, and a server that gets a longer message than
 * its own allows closes the link that it came by: packets fit both. Absent: not told, so that of the source's servers counts alone.
 */
const MaxPayload = Schema.Int.check(Schema.isGreaterThanOrEqualTo(MESSAGE_BYTES_MIN));

export const OfferedBlock = Schema.Struct({
  name: Schema.String.check(Schema.isMaxLength(255)),
  "length-bytes": Schema.Int.check(
    Schema.isBetween({ minimum: PAGE_BYTES, maximum: BLOCK_BYTES_MAX }),
    Schema.isMultipleOf(PAGE_BYTES),
  ),
  "page-size": Schema.Natural,
  /** Where it begins in the source's file, for who asks the source's workers for its pages; absent: at 0. */
  "file-offset": Schema.optionalKey(Schema.Natural),
});
/** What the source brings; the destination refuses with a list of what differs. */
export const Offer = Schema.Struct({
  version: Schema.Natural,
  driver: Schema.Literals(["builtin", "qemu"]),
  machine: Schema.String.check(Schema.isMaxLength(255)),
  hypervisor: Schema.String.check(Schema.isMaxLength(255)),
  running: Schema.Boolean,
  blocks: Schema.Array(OfferedBlock).check(Schema.isMaxLength(BLOCKS_MAX)),
  /** Absent: no VFIO devices. */
  devices: Schema.optionalKey(OfferedDevices),
  "max-payload": Schema.optionalKey(MaxPayload),
});
export type Offer = typeof Offer.Type;
export const OFFER_VERSION = PROTOCOL_VERSION;

/** Along which way, and by whom: a side takes commands of its own migration's coordinator alone (`authority.ts`). */
const command = {
  migration: MigrationId,
  source: Name,
  destination: Name,
  term: Term,
  /** The life of the coordinator that owns the migration under this term. */
  coordinator: Incarnation,
};

/** Parameters that were changed while the migration runs. */
const tune = { ...command, epoch: Epoch, parameters: Parameters, "parameters-revision": ParametersRevision };

export const SourceCommand = Schema.Union([
  Schema.TaggedStruct("Claim", {
    ...command,
    attempt: Schema.Natural,
    guest: Name,
    parameters: Parameters,
    "parameters-revision": Schema.optionalKey(ParametersRevision),
    capabilities: CapabilitySet,
  }),
  Schema.TaggedStruct("Start", {
    ...command,
    epoch: Epoch,
    incarnation: Incarnation,
    "max-payload": Schema.optionalKey(MaxPayload),
  }),
  Schema.TaggedStruct("Verdict", {
    ...command,
    epoch: Epoch,
    round: Schema.Natural,
    verdict: Schema.Literals(["iterate", "switch-over", "start-postcopy"]),
  }),
  /** Not at the next verdict, but now. */
  Schema.TaggedStruct("StartPostcopy", { ...command, epoch: Epoch }),
  Schema.TaggedStruct("Continue", { ...command, epoch: Epoch }),
  Schema.TaggedStruct("Tune", tune),
  /** Of this attempt, or an earlier one: a word that is late must not end the next. */
  Schema.TaggedStruct("Abort", { ...command, attempt: Schema.Natural, failure: FailureSchema }),
  Schema.TaggedStruct("Inspect", { ...command }),
  Schema.TaggedStruct("Conclude", { ...command, info: MigrationInfo }),
]);
export type SourceCommand = typeof SourceCommand.Type;

export const DestinationCommand = Schema.Union([
  Schema.TaggedStruct("Prepare", {
    ...command,
    epoch: Epoch,
    guest: Name,
    offer: Offer,
    parameters: Parameters,
    "parameters-revision": Schema.optionalKey(ParametersRevision),
    capabilities: CapabilitySet,
  }),
  Schema.TaggedStruct("Tune", tune),
  Schema.TaggedStruct("Abandon", { ...command, epoch: Epoch, failure: FailureSchema }),
  /** Postcopy: ask for no further pages; and ask again. The operator's word with the higher number holds. */
  Schema.TaggedStruct("Pause", { ...command, epoch: Epoch, word: Schema.Natural }),
  Schema.TaggedStruct("Recover", { ...command, epoch: Epoch, word: Schema.Natural }),
  Schema.TaggedStruct("Inspect", { ...command }),
  Schema.TaggedStruct("Conclude", { ...command, info: MigrationInfo }),
]);
export type DestinationCommand = typeof DestinationCommand.Type;

/** How the source stands. `unknown`: this process knows nothing of the migration (it was restarted). */
export const SourcePhase = Schema.Literals([
  "unknown",
  "claiming",
  "claimed",
  "precopy",
  "stopping",
  "pre-switchover",
  "switching",
  /** The guest runs at the destination, and this side keeps the pages that it has not fetched yet. */
  "postcopy",
  "taking-back",
  "completed",
  "failed",
]);
export type SourcePhase = typeof SourcePhase.Type;

/** After each sync the source asks the coordinator whether to go on or to switch over; it goes on sending meanwhile. */
export const PassReport = Schema.Struct({
  round: Schema.Natural,
  /** Bytes dirty at this sync, or not acknowledged before it. */
  remaining: Schema.Finite,
  /** Bytes/s of guest pages that had a payload, over the last rounds; 0: nothing measured yet. */
  bandwidth: Schema.Finite,
  /** Bytes of pages that must still be compared with the destination, and at what rate that went, bytes/s; 0 without capability `verify`. */
  unverified: Schema.Finite,
  "verify-bandwidth": Schema.Finite,
  "sync-ms": Schema.Finite,
  running: Schema.Boolean,
  /** Bytes that VFIO devices still owe, at what rate their state went, bytes/s (0: not measured yet), and how long their arcs of a switchover take as measured before, ms; absent: none. */
  devices: Schema.optionalKey(
    Schema.Struct({ remaining: Schema.Finite, bandwidth: Schema.Finite, "switchover-ms": Schema.Finite }),
  ),
});
export type PassReport = typeof PassReport.Type;

export const SourceReport = Schema.Struct({
  migration: MigrationId,
  term: Term,
  attempt: Schema.Natural,
  incarnation: Incarnation,
  phase: SourcePhase,
  epoch: Schema.Natural,
  offer: Schema.optionalKey(Offer),
  /** Present while a verdict is wanted. */
  verdict: Schema.optionalKey(PassReport),
  ram: Schema.optionalKey(RamInfo),
  "xbzrle-cache": Schema.optionalKey(XbzrleCacheInfo),
  channels: Schema.optionalKey(Schema.Array(ChannelInfo)),
  verify: Schema.optionalKey(Schema.Array(VerifyInfo)),
  devices: Schema.optionalKey(Schema.Array(VfioDeviceInfo)),
  "dirty-tracker": Schema.optionalKey(Schema.String),
  "parameters-revision": Schema.optionalKey(ParametersRevision),
  /** For so long the record that decides who runs the guest could not be reached, ms, while the guest stands still for it (O8). */
  "record-unknown-for": Schema.optionalKey(Schema.Finite),
  downtime: Schema.optionalKey(Schema.Finite),
  /** What this attempt has measured of its switchover so far. */
  waterfall: Schema.optionalKey(Waterfall),
  failure: Schema.optionalKey(FailureSchema),
});
export type SourceReport = typeof SourceReport.Type;

export const DestinationPhase = Schema.Literals([
  "unknown",
  "preparing",
  "ready",
  "loading",
  "committing",
  /** The guest runs here, and pages of it are still at the source. */
  "postcopy",
  "running",
  "failed",
]);
export type DestinationPhase = typeof DestinationPhase.Type;

export const DestinationReport = Schema.Struct({
  migration: MigrationId,
  term: Term,
  /** Of the session: a loader that was restarted and goes on with it keeps it. */
  incarnation: Incarnation,
  /** How often a restarted loader has gone on with this session. */
  life: Schema.Natural,
  phase: DestinationPhase,
  epoch: Schema.Natural,
  /** Newest round seen. */
  round: Schema.Natural,
  "dropped-packets": Schema.Natural,
  /** Of a migration with capability `encryption`. */
  "refused-packets": Schema.optionalKey(RefusedPackets),
  devices: Schema.optionalKey(Schema.Array(VfioDeviceInfo)),
  /** Of a migration with another `lane` than nats: how packets have come, to this loader and the VFIO agent of its host. */
  lanes: Schema.optionalKey(Schema.Array(LaneInfo)),
  "switchover-ack": Schema.optionalKey(SwitchoverAckInfo),
  /** Present from the moment when the guest may run with pages missing. */
  postcopy: Schema.optionalKey(PostcopyInfo),
  /** The number of the operator's last word (Pause, Recover) that has arrived; absent: none. */
  word: Schema.optionalKey(Schema.Natural),
  "parameters-revision": Schema.optionalKey(ParametersRevision),
  "max-payload": Schema.optionalKey(MaxPayload),
  /** What this side has measured of the switchover, from when it heard that the record says `switching`. */
  waterfall: Schema.optionalKey(Waterfall),
  failure: Schema.optionalKey(FailureSchema),
});
export type DestinationReport = typeof DestinationReport.Type;

/** The source's word that the record says `switching`; the loader reads the manifest from the record itself. */
export const Switching = Schema.Struct({ migration: MigrationId, epoch: Epoch });

/** Requests of users to a coordinator. */
export const MigrateRequest = Schema.Struct({
  guest: Name,
  destination: Name,
  parameters: Schema.Record(Schema.String, Schema.Unknown),
  capabilities: Schema.Record(Schema.String, Schema.Boolean),
});
export type MigrateRequest = typeof MigrateRequest.Type;
/** Which migration: by id, or the newest when absent. */
export const MigrationRequest = Schema.Struct({ migration: Schema.optionalKey(MigrationId) });
export const TuneRequest = Schema.Struct({
  migration: Schema.optionalKey(MigrationId),
  parameters: Schema.Record(Schema.String, Schema.Unknown),
});
/** A request to the coordinator that owns the migration, passed on by another replica. `not-the-owner` is its answer when it is not. */
export const OwnerRequest = Schema.Union([
  Schema.TaggedStruct("Query", { migration: MigrationId }),
  Schema.TaggedStruct("Cancel", { migration: MigrationId }),
  Schema.TaggedStruct("Continue", { migration: MigrationId }),
  Schema.TaggedStruct("StartPostcopy", { migration: MigrationId }),
  Schema.TaggedStruct("Pause", { migration: MigrationId }),
  Schema.TaggedStruct("Recover", { migration: MigrationId }),
  Schema.TaggedStruct("GiveUp", { migration: MigrationId }),
  Schema.TaggedStruct("SetParameters", {
    migration: MigrationId,
    parameters: Schema.Record(Schema.String, Schema.Unknown),
  }),
]);
export type OwnerRequest = typeof OwnerRequest.Type;
export const MigrationList = Schema.Array(MigrationInfo);

/** What a node has. */
export const NodeInfo = Schema.Struct({
  node: Schema.String,
  /** Of the package; empty for a node that could not be asked. */
  "godwit-version": Schema.String,
  /** Of the protocol, as its actors announce it. */
  protocol: Schema.optionalKey(Schema.String),
  /** Why nothing else is known of it. */
  error: Schema.optionalKey(Schema.String),
  guests: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      driver: Schema.String,
      machine: Schema.String,
      state: Schema.String,
      "memory-bytes": Schema.Finite,
      error: Schema.optionalKey(Schema.String),
    }),
  ),
  workers: Schema.Natural,
});
export type NodeInfo = typeof NodeInfo.Type;
