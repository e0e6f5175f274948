/** Checkpoints: what users ask of a node, and how it says that a save or a restore stands. */
import * as Schema from "effect/Schema";
import { MigrationId, Name } from "./ids.ts";
import { FailureSchema } from "./migration-info.ts";

/** A path and a few options; no file system takes longer ones. */
const Uri = Schema.String.check(Schema.isMaxLength(4096));

const shared = {
  /** Drawn by whoever asks: the same request, said again, is the same save. */
  id: MigrationId,
  guest: Name,
  uri: Uri,
  /** `multifd-channels`, `downtime-limit`, `max-bandwidth` and others of a migration's, by their names. */
  parameters: Schema.Record(Schema.String, Schema.Unknown),
  capabilities: Schema.Record(Schema.String, Schema.Boolean),
};

export const SaveRequest = Schema.Struct({
  ...shared,
  /** Stop the guest first, and leave it stopped. */
  stop: Schema.Boolean,
  /** Keep a checksum of each page beside the file. */
  checksums: Schema.Boolean,
});
export type SaveRequest = typeof SaveRequest.Type;

export const RestoreRequest = Schema.Struct({
  ...shared,
  /** Leave the restored guest stopped. */
  stop: Schema.Boolean,
  /** The operator's word that the copy the record speaks of is gone for good: no record can know that a host is dead. */
  takeOver: Schema.Boolean,
  /** Run the guest at once: pages come when it touches them, and the rest behind. */
  lazy: Schema.Boolean,
});
export type RestoreRequest = typeof RestoreRequest.Type;

export const CheckpointQuery = Schema.Struct({ id: MigrationId });
export type CheckpointQuery = typeof CheckpointQuery.Type;

/** For all saves, or all restores, that are under way. */
export const CheckpointListRequest = Schema.Struct({});

/** How a save or a restore stands. Bytes and ms; pages that are zero count as moved. */
export const CheckpointInfo = Schema.Struct({
  id: MigrationId,
  what: Schema.Literals(["save", "restore"]),
  guest: Name,
  node: Name,
  uri: Uri,
  /** QEMU's words: a save is `active` while the guest runs, `device` while it stands still; `postcopy-active`: it runs with pages missing. */
  status: Schema.Literals(["setup", "active", "device", "postcopy-active", "completed", "failed", "cancelled"]),
  "total-time": Schema.Finite,
  /** How long the guest stood still for it. */
  downtime: Schema.optionalKey(Schema.Finite),
  total: Schema.Finite,
  remaining: Schema.Finite,
  /** Rounds begun. */
  "dirty-sync-count": Schema.Natural,
  /** Written to, or read from, the file, however often. */
  transferred: Schema.Finite,
  /** The same in megabits/s, over all the time so far. */
  mbps: Schema.optionalKey(Schema.Finite),
  /** What of the file is in the object store; absent: it is not meant for one. */
  uploaded: Schema.optionalKey(Schema.Finite),
  /** Pages that are in the file, and those that are zero and are not. */
  normal: Schema.optionalKey(Schema.Natural),
  zero: Schema.optionalKey(Schema.Natural),
  "file-bytes": Schema.optionalKey(Schema.Finite),
  /** What became of checksums that lie beside the file. */
  checksums: Schema.optionalKey(Schema.Literals(["written", "verified", "not checked", "none", "of another save"])),
  /** From the request until the guest ran. */
  "first-instruction": Schema.optionalKey(Schema.Finite),
  /** Pages that a guest which ran already has waited for. */
  "postcopy-requests": Schema.optionalKey(Schema.Natural),
  /** From when the loader heard of one until it was placed, ms; of a QEMU: until it was sent to it. */
  "postcopy-latency": Schema.optionalKey(Schema.Struct({ p50: Schema.Finite, p99: Schema.Finite, max: Schema.Finite })),
  /** Of one that is not over: what keeps it from going on; it goes on by itself once that is gone. */
  error: Schema.optionalKey(FailureSchema),
});
export type CheckpointInfo = typeof CheckpointInfo.Type;

/** Saves and restores that one answer tells of: with so many, each of a path as long as paths can be, it fits a control message. */
export const CHECKPOINTS_LISTED_MAX = 32;
/** Those that are under way, oldest first. */
export const CheckpointList = Schema.Array(CheckpointInfo);
export type CheckpointList = typeof CheckpointList.Type;

/** Megabits/s; 0 before any time has passed. */
export const mbpsOf = (bytes: number, ms: number): number => (ms > 0 ? (bytes * 8) / (ms * 1000) : 0);

export const isCheckpointOver = ({ status }: CheckpointInfo): boolean =>
  status === "completed" || status === "failed" || status === "cancelled";
