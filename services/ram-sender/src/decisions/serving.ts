/** Postcopy at the source: what it leaves behind, and keeping it until the record says that the destination has all of it. */
import * as Bitmap from "@godwit/memory/bitmap";
import { Ledger } from "@godwit/multifd";
import {
  digestOfBitmaps,
  type Failure,
  LOST_REASON_MAX,
  type Manifest,
  type OwnershipEntry,
  PAGE_BYTES,
} from "@godwit/protocol";
import { complete, discard, type Emit, nextOp, write } from "./ending.ts";
import type { Source } from "./source-state.ts";

/** Memory that could not be given to the workers is given again, ms; and the record is looked at so often while they serve it. */
export const SERVE_AGAIN_MS = 500;
const LOOK_MS = 1000;

/** As QEMU has it: what a device writes into memory that is not there nobody could stop. */
export const noDevices = (source: Source): Failure => ({
  code: "capability-conflict",
  actor: "ram-sender",
  side: "source",
  step: "describe the guest",
  reason: `capability 'postcopy-ram' does not go with the VFIO devices of guest ${source.guest}: ${source.offer?.devices?.map(({ device }) => device).join(", ")}`,
});

export const leaveBehind = (source: Source): void => {
  const hostPages = (source.offer?.blocks ?? []).map((block) => Math.max(1, block["page-size"] / PAGE_BYTES));
  source.missing = Ledger.leaveBehind(source.ledger, hostPages);
};

export const promiseOf = (missing: ReadonlyArray<Bitmap.Bitmap>): NonNullable<Manifest["postcopy"]> => ({
  pages: missing.reduce((sum, bitmap) => sum + Bitmap.count(bitmap), 0),
  digest: digestOfBitmaps(missing.map(({ words }) => words)),
});

/** A postcopy's record stays open until all pages are there. */
export const handedOver = (source: Source, entry: OwnershipEntry, now: number, emit: Emit): void => {
  if (source.marks.running === 0) source.marks.running = now;
  if (isFetching(entry)) return serve(source, entry, now, emit);
  const { record } = entry;
  if (record.state === "destination" && record.lost !== undefined) return givenUp(source, record.lost, emit);
  source.revision = entry.revision;
  complete(source, emit);
};

const isFetching = ({ record }: OwnershipEntry): boolean =>
  record.state === "destination" && record.postcopy === true && record.open && record.lost === undefined;

/** The record says that the guest is lost, and this side has not: an operator has given it up, or a former life knew why. Nobody needs this copy any more. */
const givenUp = (source: Source, reason: string, emit: Emit): void => {
  source.failure = { ...LOST, reason };
  if (source.guestEnded === null) return discard(source, emit);
  emit({ _tag: "CloseTracker" });
  lossTold(source, emit);
};

const serve = (source: Source, entry: OwnershipEntry, now: number, emit: Emit): void => {
  source.handedOver = entry;
  if (source.phase._tag === "Serving") return;
  source.phase = { _tag: "Serving" };
  source.failure = null;
  source.nextTellAt = now;
  source.nextCheckAt = Number.POSITIVE_INFINITY;
  if (source.guestEnded !== null) return memoryLost(source, source.guestEnded, emit);
  emit({ _tag: "Local", step: "serve", round: source.ledger.round });
  emit({ _tag: "Report" });
};

/**
 * The process with the only copy of the missing pages is gone: the record says so, which the destination reads when no page comes. It
 * has the last word all the same: the last page may have come before.
 */
export const memoryLost = (source: Source, why: Failure, emit: Emit): void => {
  if (source.handedOver === null) return;
  const reason = reasonOfLoss(source.guest, why.reason);
  source.failure = { ...LOST, reason };
  source.revision = source.handedOver.revision;
  const record = { ...source.handedOver.record, op: nextOp(source), lost: reason.slice(0, LOST_REASON_MAX) };
  source.phase = { _tag: "Losing", settlement: write(source, record, emit) };
  emit({ _tag: "CloseTracker" });
  emit({ _tag: "Report" });
};

/** What the record says of a guest whose only copy of missing pages is gone. */
export const reasonOfLoss = (guest: string, why: string): string =>
  `the source's copy of guest ${guest} is gone, and with it the pages that the destination had not fetched: ${why}`;

const LOST = {
  code: "postcopy-source-lost",
  actor: "ram-sender",
  side: "source",
  step: "keep the guest's memory",
} as const;

export const lossTold = (source: Source, emit: Emit): void => {
  source.phase = { _tag: "Ended", outcome: "failed" };
  emit({ _tag: "Report" });
};

/** Somebody else has written: the destination that it needs nothing any more, or a former life of this side that all is lost. */
export const lossNotTold = (source: Source, entry: OwnershipEntry, now: number, emit: Emit): void => {
  // The guest is gone here already.
  if (!isHandedOver(source, entry) || (entry.record.state === "destination" && entry.record.lost !== undefined))
    return lossTold(source, emit);
  if (!isFetching(entry)) return handedOver(source, entry, now, emit);
  source.handedOver = entry;
  memoryLost(source, source.guestEnded ?? NO_REASON, emit);
};

const NO_REASON: Failure = { code: "guest-failed", actor: "ram-sender", step: "watch the guest", reason: "it is gone" };

export const isHandedOver = (source: Source, entry: OwnershipEntry): boolean =>
  entry.revision > source.revision && entry.record.state === "destination" && entry.record.epoch === source.epoch;

/** The record tells when all pages are there; the destination's word for it may be lost. */
export const tickServing = (source: Source, now: number, emit: Emit): void => {
  if (now >= source.nextCheckAt) {
    source.nextCheckAt = Number.POSITIVE_INFINITY;
    emit({ _tag: "Local", step: "serve", round: source.ledger.round });
  }
  if (now < source.nextTellAt) return;
  source.nextTellAt = now + LOOK_MS;
  emit({ _tag: "ReadRecord", op: "confirm", afterMs: 0 });
};
