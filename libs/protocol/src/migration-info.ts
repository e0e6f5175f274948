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
  total: Schema.Number,
  remaining: Schema.Number,
  transferred: Schema.Number,
  normal: Schema.Number,
  duplicate: Schema.Number,
  "normal-bytes": Schema.Number,
  "page-size": Schema.Number,
  "dirty-sync-count": Schema.Number,
  "dirty-pages-rate": Schema.Number,
  "pages-per-second": Schema.Number,
  /** megabits/s */
  mbps: Schema.Number,
  "multifd-bytes": Schema.Number,
  /** Work items handed out a second time because their channel was lost or late. */
  "resent-items": Schema.Number,
});
export type RamInfo = typeof RamInfo.Type;

/** Where the downtime went, ms. */
export const DowntimeParts = Schema.Struct({
  stop: Schema.Number,
  "save-device-state": Schema.Number,
  "final-sync": Schema.Number,
  "final-round": Schema.Number,
  "load-and-start": Schema.Number,
});
export type DowntimeParts = typeof DowntimeParts.Type;

export const ChannelInfo = Schema.Struct({
  channel: Schema.Int,
  worker: Schema.NullOr(Schema.String),
  epoch: Schema.Int,
  "in-flight": Schema.Number,
});

export const MigrationInfo = Schema.Struct({
  migration: MigrationId,
  guest: Schema.String,
  source: Schema.String,
  destination: Schema.String,
  status: MigrationStatus,
  "total-time": Schema.Number,
  "setup-time": Schema.optionalKey(Schema.Number),
  "expected-downtime": Schema.optionalKey(Schema.Number),
  downtime: Schema.optionalKey(Schema.Number),
  "downtime-parts": Schema.optionalKey(DowntimeParts),
  ram: Schema.optionalKey(RamInfo),
  channels: Schema.optionalKey(Schema.Array(ChannelInfo)),
  "dirty-tracker": Schema.optionalKey(Schema.String),
  attempts: Schema.Int,
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
