/** What `query-migrate` answers: QEMU's fields, units and names, extended, never renamed. */
import * as Schema from "effect/Schema";
import { LaneCount } from "./direct-lane.ts";
import { Difference, type ErrorCode, REMEDIES } from "./error.ts";
import { MigrationId } from "./ids.ts";
import { EncryptionInfo } from "./key-agreement.ts";
import { COMPRESSIONS } from "./packet.ts";
import { Waterfall } from "./waterfall.ts";

/** QEMU's MigrationStatus, as far as godwit goes through it. */
export const MigrationStatus = Schema.Literals([
  "none",
  "setup",
  "active",
  "pre-switchover",
  "device",
  "postcopy-active",
  "postcopy-paused",
  "postcopy-recover",
  "cancelling",
  "completed",
  "failed",
  "cancelled",
]);
export type MigrationStatus = typeof MigrationStatus.Type;

export const isEnded = (status: MigrationStatus): boolean =>
  status === "completed" || status === "failed" || status === "cancelled";

/** The guest runs at the destination, and its pages are partly at the source. */
export const isInPostcopy = (status: MigrationStatus): boolean =>
  status === "postcopy-active" || status === "postcopy-paused" || status === "postcopy-recover";

export const FailureSchema = Schema.Struct({
  code: Schema.Literals(Object.keys(REMEDIES) as [ErrorCode, ...ErrorCode[]]),
  actor: Schema.String,
  side: Schema.optionalKey(Schema.Literals(["source", "destination"])),
  step: Schema.String,
  reason: Schema.String,
  differences: Schema.optionalKey(Schema.Array(Difference)),
});

/** RAM counters; bytes unless named otherwise. `duplicate` counts zero pages. */
export const RamInfo = Schema.Struct({
  total: Schema.Finite,
  remaining: Schema.Finite,
  transferred: Schema.Finite,
  normal: Schema.Finite,
  duplicate: Schema.Finite,
  "normal-bytes": Schema.Finite,
  "page-size": Schema.Finite,
  "dirty-sync-count": Schema.Finite,
  "dirty-pages-rate": Schema.Finite,
  "pages-per-second": Schema.Finite,
  /** megabits/s */
  mbps: Schema.Finite,
  "multifd-bytes": Schema.Finite,
  /** Work items handed out a second time because their channel was lost or late. */
  "resent-items": Schema.Finite,
  /** With `multifd-compression: auto`, how pages are compressed at present. */
  "multifd-codec": Schema.optionalKey(Schema.Literals(COMPRESSIONS)),
});
export type RamInfo = typeof RamInfo.Type;

/** Capability `xbzrle`, by QEMU's names; the rates are of the whole migration. */
export const XbzrleCacheInfo = Schema.Struct({
  /** bytes */
  "cache-size": Schema.Finite,
  /** Of deltas on the wire, and the pages that came as such. */
  bytes: Schema.Finite,
  pages: Schema.Finite,
  /** Pages of later passes that were not kept, or not as the destination was known to have them; and their part of all. */
  "cache-miss": Schema.Finite,
  "cache-miss-rate": Schema.Finite,
  /** Bytes of a page for each byte of its delta; 0 before the first one. */
  "encoding-rate": Schema.Finite,
  /** Pages that went whole though they were kept: a delta would not have been shorter. */
  overflow: Schema.Finite,
});
export type XbzrleCacheInfo = typeof XbzrleCacheInfo.Type;

/** Capability `verify`: pages of a RAMBlock that were compared with the destination; `pages-damaged` were found different, and sent again. */
export const VerifyInfo = Schema.Struct({
  block: Schema.String,
  "pages-checked": Schema.Finite,
  "pages-damaged": Schema.Finite,
});

/** One arc that a device went, and how long it took, ms. */
export const ArcInfo = Schema.Struct({
  from: Schema.String,
  to: Schema.String,
  ms: Schema.Finite,
  /** When it began, us of its host's monotonic clock: good beside other times of that host alone. Absent: not measured. */
  at: Schema.optionalKey(Schema.Finite),
});
export type ArcInfo = typeof ArcInfo.Type;

/** A VFIO device at one side; states by the uAPI's names, bytes of its migration stream. */
export const VfioDeviceInfo = Schema.Struct({
  device: Schema.String,
  provider: Schema.String,
  state: Schema.String,
  /** At the source: what VFIO_MIG_GET_PRECOPY_INFO says is still to be read. */
  "initial-bytes": Schema.Finite,
  "dirty-bytes": Schema.Finite,
  /** About what STOP_COPY would give now (VFIO_DEVICE_FEATURE_MIG_DATA_SIZE); 0: not known. */
  "stop-copy-bytes": Schema.Finite,
  /** Of the stream: acknowledged (source), or written to the device (destination). */
  transferred: Schema.Finite,
  /** Read from the device, or arrived, and not transferred yet. */
  queued: Schema.Finite,
  /** At the destination: the most that ever waited for an earlier slice of one of its streams. */
  "queued-peak": Schema.optionalKey(Schema.Finite),
  /** Where in the stream the initial data ends; absent: not known, or not all of it was read. */
  "initial-end": Schema.optionalKey(Schema.Finite),
  /** At the destination: it advised switchover-ack, and has loaded its initial data. */
  "initial-loaded": Schema.optionalKey(Schema.Boolean),
  /** It did not come to RUNNING with its state, and was reset: it runs as after a power cycle. */
  "state-lost": Schema.optionalKey(Schema.Literal(true)),
  /** What it did in this migration, newest last. */
  arcs: Schema.Array(ArcInfo),
  /** How long the arcs of a switchover take here, as they were measured before, ms; 0: never yet. */
  "switchover-ms": Schema.Finite,
});
export type VfioDeviceInfo = typeof VfioDeviceInfo.Type;

/** QEMU's `vfio` of query-migrate, and what godwit knows besides. */
export const VfioInfo = Schema.Struct({
  /** Of all devices, bytes. */
  transferred: Schema.Finite,
  source: Schema.Array(VfioDeviceInfo),
  destination: Schema.Array(VfioDeviceInfo),
});
export type VfioInfo = typeof VfioInfo.Type;

/** Capability `switchover-ack`: devices that advised it, and those of them that have not loaded their initial data. */
export const SwitchoverAckInfo = Schema.Struct({
  advised: Schema.Natural,
  pending: Schema.Array(Schema.String),
});
export type SwitchoverAckInfo = typeof SwitchoverAckInfo.Type;

/** A postcopy, as the destination sees it. Times in ms; `latency` is from a vCPU's touch to its page. */
export const PostcopyInfo = Schema.Struct({
  /** `paused`: pages do not come, and the guest's threads wait as they touch them. `recover`: they are asked for again. */
  state: Schema.Literals(["active", "paused", "recover"]),
  /** Bytes of pages that are still at the source only. */
  remaining: Schema.Finite,
  transferred: Schema.Finite,
  /** Pages that a vCPU has waited for. */
  requests: Schema.Natural,
  latency: Schema.Struct({
    p50: Schema.Finite,
    p90: Schema.Finite,
    p99: Schema.Finite,
    max: Schema.Finite,
  }),
  /** While all vCPUs waited; and for how long each of them did. */
  blocktime: Schema.Finite,
  "vcpu-blocktime": Schema.Array(Schema.Finite),
  /** Why it is paused. */
  reason: Schema.optionalKey(Schema.String),
});
export type PostcopyInfo = typeof PostcopyInfo.Type;

/** QEMU's status for it; `null`: it has only just begun. */
export const statusOfPostcopy = (
  info: PostcopyInfo | null,
): "postcopy-active" | "postcopy-paused" | "postcopy-recover" => `postcopy-${info?.state ?? "active"}`;

/** QEMU's names for it. */
export const fieldsOfPostcopy = (info: PostcopyInfo) => ({
  "postcopy-requests": info.requests,
  "postcopy-blocktime": info.blocktime,
  "postcopy-vcpu-blocktime": info["vcpu-blocktime"],
  "postcopy-latency": info.latency,
});

export const ChannelInfo = Schema.Struct({
  channel: Schema.Natural,
  worker: Schema.NullOr(Schema.String),
  epoch: Schema.Natural,
  "in-flight": Schema.Finite,
  /** By which its packets came to the destination, for each purpose; absent with `lane: nats`, and before the first one. */
  lanes: Schema.optionalKey(Schema.Array(LaneCount)),
});
export type ChannelInfo = typeof ChannelInfo.Type;

export const MigrationInfo = Schema.Struct({
  migration: MigrationId,
  guest: Schema.String,
  source: Schema.String,
  destination: Schema.String,
  status: MigrationStatus,
  "total-time": Schema.Finite,
  "setup-time": Schema.optionalKey(Schema.Finite),
  "expected-downtime": Schema.optionalKey(Schema.Finite),
  downtime: Schema.optionalKey(Schema.Finite),
  /** Where the time went in which the guest stood still; absent before that, and where nobody is left who measured it. */
  waterfall: Schema.optionalKey(Waterfall),
  ram: Schema.optionalKey(RamInfo),
  /** Absent without capability `xbzrle`. */
  "xbzrle-cache": Schema.optionalKey(XbzrleCacheInfo),
  channels: Schema.optionalKey(Schema.Array(ChannelInfo)),
  verify: Schema.optionalKey(Schema.Array(VerifyInfo)),
  vfio: Schema.optionalKey(VfioInfo),
  /** Absent without capability `encryption`. */
  encryption: Schema.optionalKey(EncryptionInfo),
  /** QEMU's names for it, of the destination; absent without postcopy. */
  "postcopy-requests": Schema.optionalKey(Schema.Natural),
  "postcopy-blocktime": Schema.optionalKey(Schema.Finite),
  "postcopy-vcpu-blocktime": Schema.optionalKey(Schema.Array(Schema.Finite)),
  "postcopy-latency": Schema.optionalKey(PostcopyInfo.fields.latency),
  "dirty-tracker": Schema.optionalKey(Schema.String),
  attempts: Schema.Natural,
  /** What an operator should know besides, in plain words. */
  note: Schema.optionalKey(Schema.String),
  "error-desc": Schema.optionalKey(Schema.String),
  error: Schema.optionalKey(FailureSchema),
});
export type MigrationInfo = typeof MigrationInfo.Type;

/** What watchers get: QEMU's events, each with the whole state, so that a lost one costs nothing. */
export const MigrationEvent = Schema.Struct({
  event: Schema.Literals(["MIGRATION", "MIGRATION_PASS", "PROGRESS"]),
  info: MigrationInfo,
});
export type MigrationEvent = typeof MigrationEvent.Type;
