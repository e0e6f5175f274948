/**
 * How a migration ends whose source cannot say it: its process was restarted and has forgotten, or nobody answers. What happened
 * is in the ownership record. A source that only sleeps is fenced off by a higher epoch before its ending is told, so that it
 * cannot hand the guest over afterwards (O4).
 *
 * A fence takes a guest out of a switchover that may be all right, so only the owner of the migration may write it. Each write
 * follows upon a save that was begun after the decision and was won: whoever slept, or was cut off, is refused there first.
 */
import {
  type Failure,
  FENCE_OP_PREFIX,
  type OwnershipEntry,
  type OwnershipRecord,
  type SettlementEvent,
  settle,
} from "@godwit/protocol";
import type { Migration, Next } from "./migration-state.ts";
import { type Emit, end, finish, settleNext } from "./moves.ts";
import { wantSave } from "./tenure.ts";

/** A restarted sender settles its record within a second or two, and a record is read every 250 ms: ten seconds. */
const LOOKS_MAX = 40;

export const reckon = (migration: Migration, why: Failure, wanted: Next, silent: boolean): void => {
  migration.phase = { _tag: "Reckoning", next: settleNext(migration, why, wanted), silent, looks: 0, settlement: null };
  wantSave(migration);
};

/** What the record says is the truth, if it is of this attempt; an older one is stale, and is read again. */
export const recordRead = (
  migration: Migration,
  entry: OwnershipEntry | null | "Unknown",
  now: number,
  emit: Emit,
): void => {
  const { phase } = migration;
  if (phase._tag !== "Reckoning") return;
  if (phase.settlement !== null) {
    return settlementEvent(migration, { _tag: "Read", op: phase.settlement.record.op, entry }, now, emit);
  }
  if (entry === "Unknown") return;
  if (entry === null) return finish(migration, phase.next, now);
  const { record } = entry;
  if (record.epoch < migration.epoch) return;
  if (record.migration !== migration.migration) return finish(migration, phase.next, now);
  if (record.state === "destination") {
    if (record.postcopy !== true || !record.open) return end(migration, "completed", now);
    migration.epoch = record.epoch;
    migration.failure = null;
    migration.phase = { _tag: "Postcopy" };
    return wantSave(migration);
  }
  if (phase.silent) return fence(migration, entry);
  // A restarted sender takes its predecessor's switchover back, under a higher epoch; until then, and by an answer from before,
  // nothing is decided.
  if (record.state === "source" && (record.epoch > migration.epoch || !record.open))
    return finish(migration, phase.next, now);
  // A sender that read an old record at its start found nothing to take back, and says no more: then it is done for it.
  if (phase.looks >= LOOKS_MAX) return fence(migration, entry);
  migration.phase = { ...phase, looks: phase.looks + 1 };
};

const fence = (migration: Migration, entry: OwnershipEntry): void => {
  const { phase } = migration;
  if (phase._tag !== "Reckoning") return;
  const { record } = entry;
  const fenced: OwnershipRecord = {
    state: "source",
    epoch: (record.epoch + 1) as OwnershipRecord["epoch"],
    op: `${FENCE_OP_PREFIX}${migration.migration}-${migration.term}-${++migration.ops}`,
    migration: record.migration,
    node: record.node,
    // Open: whoever wakes up at the source lets the guest go on, and closes it.
    open: true,
    wasRunning: record.wasRunning,
  };
  migration.phase = { ...phase, settlement: { record: fenced, revision: entry.revision } };
  migration.fencedAfter = migration.tenure.saves;
  wantSave(migration);
};

/** The save of this number was won: still the owner, so the fence may be written. */
export const fenceAllowed = (migration: Migration, save: number, emit: Emit): void => {
  const { phase } = migration;
  if (phase._tag !== "Reckoning" || phase.settlement === null || save <= migration.fencedAfter) return;
  migration.fencedAfter = save;
  emit({ _tag: "WriteRecord", record: phase.settlement.record, revision: phase.settlement.revision });
};

export const settlementEvent = (migration: Migration, event: SettlementEvent, now: number, emit: Emit): void => {
  const { phase } = migration;
  if (phase._tag !== "Reckoning" || phase.settlement === null || phase.settlement.record.op !== event.op) return;
  const next = settle(phase.settlement, event);
  switch (next._tag) {
    case "Won":
      return finish(migration, phase.next, now);
    case "Lost":
      // Somebody was faster; what they wrote is looked at from the start.
      migration.phase = { ...phase, settlement: null };
      return recordRead(migration, next.to, now, emit);
    case "Read":
      return next.after === "at once" ? emit({ _tag: "ReadRecord" }) : undefined;
    case "Write":
      return;
  }
};

/** At every command interval: ask again, or write again, by the same way, what is not known to have been written. */
export const reckonAgain = (migration: Migration, emit: Emit): void => {
  const { phase } = migration;
  if (phase._tag !== "Reckoning") return;
  if (phase.settlement === null) return emit({ _tag: "ReadRecord" });
  wantSave(migration);
};
