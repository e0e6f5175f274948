/** What `query-migrate` answers: QEMU's fields, units and names, extended, never renamed. */
import * as Schema from "effect/Schema";
import { Difference, type ErrorCode, REMEDIES } from "./error.ts";
import { MigrationId } from "./ids.ts";

/** QEMU's MigrationStatus, as far as godwit goes through it. */
export const MigrationStatus = Schema.Literals([
  "none",
  "setup",
  "active",
  "pre-switchover",
  "device",
  "cancelling",
  "completed",
  "failed",
  "cancelled",
]);
export type MigrationStatus = typeof MigrationStatus.Type;

export const isEnded = (status: MigrationStatus): boolean =>
  status === "completed" || status === "failed" || status === "cancelled";

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
});
export type RamInfo = typeof RamInfo.Type;

/** Where the downtime went, ms. */
export const DowntimeParts = Schema.Struct({
  stop: Schema.Finite,
  "save-device-state": Schema.Finite,
  "final-sync": Schema.Finite,
  "final-round": Schema.Finite,
  /** Comparing the last pages with the destination; 0 without capability `verify`. */
  verify: Schema.Finite,
  "load-and-start": Schema.Finite,
});
export type DowntimeParts = typeof DowntimeParts.Type;

/** Capability `verify`: pages of a RAMBlock that were compared with the destination; `pages-damaged` were found different, and sent again. */
export const VerifyInfo = Schema.Struct({
  block: Schema.String,
  "pages-checked": Schema.Finite,
  "pages-damaged": Schema.Finite,
});

export const ChannelInfo = Schema.Struct({
  channel: Schema.Natural,
  worker: Schema.NullOr(Schema.String),
  epoch: Schema.Natural,
  "in-flight": Schema.Finite,
});

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
  "downtime-parts": Schema.optionalKey(DowntimeParts),
  ram: Schema.optionalKey(RamInfo),
  channels: Schema.optionalKey(Schema.Array(ChannelInfo)),
  verify: Schema.optionalKey(Schema.Array(VerifyInfo)),
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
