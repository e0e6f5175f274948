/** Moves between phases that several events lead to. */
import type { Failure, Incarnation, MigrationId } from "@godwit/protocol";
import type { EndStatus, Migration, MigrationEffect, Next } from "./migration-state.ts";
import { wantSave } from "./tenure.ts";

export type Emit = (effect: MigrationEffect) => void;

/** Attempts of one migration: an actor that dies again and again shall not keep a guest in precopy for ever. */
const ATTEMPTS_MAX = 5;

export const header = (migration: Migration) => ({
  migration: migration.migration as MigrationId,
  source: migration.source,
  destination: migration.destination,
  term: migration.term,
  coordinator: migration.tenure.owner as Incarnation,
});

export const failure = (code: Failure["code"], step: string, reason: string): Failure => ({
  code,
  actor: "coordinator",
  step,
  reason,
});

/** An agent that is started again, and a device whose latency is known now, are worth another try; other failures say what to do first. */
export const nextAfter = (why: Failure): Next =>
  why.code === "vfio-agent-lost" || why.code === "device-over-budget" ? "retry" : "failed";

/** Another attempt only while there are some left, and while nothing speaks against it. The first reason stays (R10). */
export const settleNext = (migration: Migration, why: Failure, wanted: Next): Next => {
  const next =
    wanted === "retry" && (migration.attempt >= ATTEMPTS_MAX || migration.failure !== null) ? "failed" : wanted;
  if (next !== "retry") migration.failure ??= why;
  return next;
};

/** Undoes the attempt at both sides, then `wanted`. */
export const abort = (migration: Migration, why: Failure, wanted: Next): void => {
  migration.phase = { _tag: "Aborting", next: settleNext(migration, why, wanted) };
  wantSave(migration);
};

export const end = (migration: Migration, status: EndStatus, now: number): void => {
  migration.endedAt = now;
  migration.phase = { _tag: "Ending", status };
  wantSave(migration);
};

/** The attempt is undone, the guest is at the source. */
export const finish = (migration: Migration, next: Next, now: number): void => {
  if (next !== "retry") return end(migration, next, now);
  migration.attempt++;
  migration.phase = { _tag: "Claiming" };
  migration.sourceReport = null;
  migration.destinationReport = null;
  // All memory is dirty again: what the former attempt had left is nothing to be measured by.
  migration.progress = { ...migration.progress, bestRemaining: Number.POSITIVE_INFINITY, bestAt: now };
  migration.sourceHeardAt = now;
  migration.destinationHeardAt = now;
  migration.epoch = 0;
  wantSave(migration);
};
