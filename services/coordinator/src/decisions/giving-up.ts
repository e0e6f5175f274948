/**
 * An operator says of a postcopy that one of its hosts is lost for good, and the guest with it. Nobody else can know that. It is written
 * into the ownership record, which both sides read, now or whenever they are back: the source lets its copy go, the destination ends the guest
 * that waits for pages, or has just got the last one. Where the destination has closed the record before, it has completed.
 *
 * Written as a fence is (`reckoning.ts`): by the owner of the migration alone, upon a save that was won since.
 */
import {
  LOST_REASON_MAX,
  type OwnershipEntry,
  type OwnershipRecord,
  type SettlementEvent,
  settle,
} from "@godwit/protocol";
import type { Migration } from "./migration-state.ts";
import { type Emit, end, failure } from "./moves.ts";
import { wantSave } from "./tenure.ts";

/** A destination that is silent for so long may be lost, ms: no restart of a loader takes so long. */
const SILENT_MS = 15_000;

/** Why the migration may still come to a better end; null: nothing but this word is left. */
export const obstacleToGivingUp = (migration: Migration, now: number): string | null => {
  const { phase, destinationReport, destinationHeardAt, word, guest, destination } = migration;
  if (phase._tag !== "Postcopy") return `guest ${guest} runs at one side with all of its memory: cancel the migration`;
  if (now - destinationHeardAt >= SILENT_MS) return null;
  if (word?.word === "Pause") return "it was paused by request: `godwit recover` goes on with it";
  const state = destinationReport?.postcopy?.state;
  if (state === "recover" || state === "paused") return null;
  return `the loader of node ${destination} is there, and pages of the guest come`;
};

/** Harmless when said again. */
export const giveUp = (migration: Migration): void => {
  migration.givingUp ??= { settlement: null, isTold: false };
  wantSave(migration);
};

/** At every command interval: read again, or write again, what is not known to have been written. Of a migration that both sides have forgotten the record tells how it ended. */
export const giveUpAgain = (migration: Migration, emit: Emit): void => {
  const { givingUp, lastStepAt, sourceHeardAt, destinationHeardAt } = migration;
  const isForgotten = lastStepAt - Math.max(sourceHeardAt, destinationHeardAt) >= SILENT_MS;
  if (givingUp === null || givingUp.isTold) return isForgotten ? emit({ _tag: "ReadRecord" }) : undefined;
  if (givingUp.settlement === null) return emit({ _tag: "ReadRecord" });
  wantSave(migration);
};

const reasonOf = (guest: string): string =>
  `guest ${guest} was given up by an operator, while pages of it were at one host only and did not come`;

export const recordRead = (migration: Migration, entry: OwnershipEntry | null | "Unknown", now: number): void => {
  const { givingUp } = migration;
  if (entry === null || entry === "Unknown" || entry.record.epoch < migration.epoch) return;
  const { record } = entry;
  const isOurs = record.migration === migration.migration && record.epoch === migration.epoch;
  if (isOurs && record.state === "destination" && !record.open) return closed(migration, record.lost, now);
  if (givingUp === null || givingUp.isTold || givingUp.settlement !== null) return;
  // Taken over for a restore, by the word of the same operator perhaps.
  if (!isOurs) return ended(migration, now);
  // An answer of before the commit.
  if (record.state !== "destination") return;
  if (record.givenUp === true) return told(migration, record.lost ?? reasonOf(migration.guest));
  const lost: OwnershipRecord = {
    ...record,
    op: `give-up-${migration.migration}-${migration.term}-${++migration.ops}`,
    lost: reasonOf(migration.guest).slice(0, LOST_REASON_MAX),
    givenUp: true,
  };
  givingUp.settlement = { record: lost, revision: entry.revision };
  migration.fencedAfter = migration.tenure.saves;
  wantSave(migration);
};

/** The save of this number was won: still the owner, so it may be written. */
export const writeAllowed = (migration: Migration, save: number, emit: Emit): void => {
  const settlement = migration.givingUp?.settlement ?? null;
  if (migration.phase._tag !== "Postcopy" || settlement === null || migration.givingUp?.isTold) return;
  if (save <= migration.fencedAfter) return;
  migration.fencedAfter = save;
  emit({ _tag: "WriteRecord", record: settlement.record, revision: settlement.revision });
};

export const settlementEvent = (migration: Migration, event: SettlementEvent, now: number, emit: Emit): void => {
  const { givingUp } = migration;
  if (givingUp === null || givingUp.settlement === null || givingUp.settlement.record.op !== event.op) return;
  const next = settle(givingUp.settlement, event);
  switch (next._tag) {
    case "Won":
      return told(migration, reasonOf(migration.guest));
    case "Lost":
      // Somebody was faster; what they wrote is looked at from the start.
      givingUp.settlement = null;
      return recordRead(migration, next.to, now);
    case "Read":
      return next.after === "at once" ? emit({ _tag: "ReadRecord" }) : undefined;
    case "Write":
      return;
  }
};

/** It is over, and whoever has closed it may not have lived to say so. */
const closed = (migration: Migration, lost: string | undefined, now: number): void => {
  if (lost !== undefined) migration.failure ??= failure("postcopy-source-lost", "bring pages", lost);
  end(migration, lost === undefined ? "completed" : "failed", now);
};

const told = (migration: Migration, reason: string): void => {
  if (migration.givingUp !== null) migration.givingUp.isTold = true;
  migration.failure ??= failure("postcopy-given-up", "give up", reason);
};

const ended = (migration: Migration, now: number): void => {
  told(migration, reasonOf(migration.guest));
  end(migration, "failed", now);
};

/** The record says it, and a destination that is there will say what became of the guest; one that is not need not be waited for. */
export const mayEnd = ({ phase, givingUp, destinationHeardAt }: Migration, now: number): boolean =>
  phase._tag === "Postcopy" && givingUp?.isTold === true && now - destinationHeardAt >= SILENT_MS;
