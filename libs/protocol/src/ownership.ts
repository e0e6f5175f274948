/**
 * The ownership record: the one linearizable register that says which node may run a guest (DESIGN 4).
 *
 *     source --- guest stopped, last round handed out ---> switching --- destination holds everything ---> destination
 *       ^                                                      |
 *       +------------------- take back ------------------------+
 *
 * A claim (`source`, epoch + 1) begins each attempt and fences off everything of earlier ones. Each write has an operation
 * id of its own: by it a writer whose answer was lost recognises its own write (O5).
 */
import * as Schema from "effect/Schema";
import { Epoch, Incarnation, MigrationId, Name } from "./ids.ts";
import { DEVICE_STATE_BYTES_MAX } from "./limits.ts";
import { DeviceManifest } from "./vfio.ts";

/** What the destination must hold before it may take over: every item of the final round, among them the slices of the device state and, with capability `verify`, the checks of pages. */
export const Manifest = Schema.Struct({
  round: Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)),
  items: Schema.Natural,
  deviceBytes: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: DEVICE_STATE_BYTES_MAX })),
  /** crc32 of the device state as it was saved; the destination loads no other. */
  deviceDigest: Schema.Natural,
  /** The streams of the guest's VFIO devices; absent: it has none. */
  streams: Schema.optionalKey(DeviceManifest),
  /**
   * Postcopy: the guest shall run without these pages, which are fetched afterwards. `digest`: crc32 over the bitmaps of all RAMBlocks,
   * in order. Absent: all of its memory comes before.
   */
  postcopy: Schema.optionalKey(Schema.Struct({ pages: Schema.Natural, digest: Schema.Natural })),
});
export type Manifest = typeof Manifest.Type;

/** A sentence or two, characters. */
export const LOST_REASON_MAX = 1000;

const shared = {
  epoch: Epoch,
  /** Unique for each write. */
  op: Schema.String,
  migration: MigrationId,
  /** The node that may run the guest, or, while switching, the one that ran it. */
  node: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{1,64}$/)),
  /** True while an attempt is on its way; false once its end was settled, so that a restarted actor leaves the guest alone. */
  open: Schema.Boolean,
  /** The guest ran when the attempt began, and shall run when it ends. */
  wasRunning: Schema.Boolean,
};

export const OwnershipRecord = Schema.Union([
  Schema.Struct({ state: Schema.Literal("source"), ...shared }),
  Schema.Struct({
    state: Schema.Literal("switching"),
    ...shared,
    destination: Name,
    incarnation: Incarnation,
    manifest: Manifest,
  }),
  Schema.Struct({
    state: Schema.Literal("destination"),
    ...shared,
    incarnation: Incarnation,
    /** While the record is open, pages of the guest are still at the source, and at no other place: nobody may throw them away. */
    postcopy: Schema.optionalKey(Schema.Literal(true)),
    /** Written by the source, which has lost them, or by the coordinator for an operator: why. Nobody brings them any more; who lacks none of them runs on. */
    lost: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(LOST_REASON_MAX))),
    /** An operator has given the guest up: nobody runs it any more, nor one that lacks nothing. */
    givenUp: Schema.optionalKey(Schema.Literal(true)),
  }),
]);
export type OwnershipRecord = typeof OwnershipRecord.Type;

/** A record with the revision that a compare-and-set must name. */
export interface OwnershipEntry {
  readonly record: OwnershipRecord;
  readonly revision: number;
}

/**
 * Operation ids of a coordinator that takes a guest back begin with this: a source that wakes up then knows that it was not its own
 * successor, and lets the guest go on.
 */
export const FENCE_OP_PREFIX = "coordinator-";
