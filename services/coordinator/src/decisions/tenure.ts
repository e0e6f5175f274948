/**
 * Whether this coordinator still owns its migration. Another one takes over when this one seems dead: by a compare-and-set on
 * the migrations bucket, under a higher term. So a save that is won proves that nobody had taken over when it was written, and
 * nothing else does.
 *
 *     held --- stood still | own link changed | a report with a higher term ---> in doubt --- a save begun since is won ---> held
 *       |                                                                           |
 *       +--------------------- the bucket shows a higher term ----------------------+---> Replaced
 *
 * In doubt nothing is said, written or believed; reports are repeated anyway, and requests wait. While the bucket cannot be
 * reached the migration goes on as long as there is no doubt: every save that is not won is tried again.
 */
import type { Migration, MigrationEffect, MigrationEventIn } from "./migration-state.ts";

/** A save without an outcome is tried again after this, ms: a leader change takes seconds. */
const SAVE_AGAIN_MS = 250;
/**
 * A step comes every 250 ms at least. A longer gap than this, ms, means that this process stood still: the last beat was sent up
 * to 200 ms before, and 800 ms (SILENT_MS) after it somebody may have taken over.
 */
export const STANDSTILL_MS = 500;

/** Something that a successor must know has changed. */
export const wantSave = (migration: Migration): void => {
  migration.tenure.wanted = true;
};

/** Everything that a successor must know is in the bucket. */
export const isSaved = ({ tenure }: Migration): boolean => !tenure.wanted && tenure.pending === null;

/** Nothing will be said, written or believed until a save is won. `since`: what happened from then on was not seen. */
export const doubt = ({ tenure }: Migration, since: number, now: number): void => {
  tenure.doubt = { since: tenure.doubt?.since ?? since, after: tenure.saves };
  tenure.wanted = true;
  tenure.nextSaveAt = now;
};

/** What this event, or the time it comes at, says against this coordinator's ownership. */
export const lookForDoubt = (migration: Migration, event: MigrationEventIn, now: number): void => {
  const since = migration.lastStepAt;
  migration.lastStepAt = now;
  // Once it has ended it does not matter any more who says so.
  if (migration.phase._tag === "Ended") return;
  if (now - since > STANDSTILL_MS) doubt(migration, since, now);
  if (event._tag === "LinkChanged") doubt(migration, since, now);
  // Not believed at once: anybody can say a number. The bucket decides.
  const isReport = event._tag === "SourceReported" || event._tag === "DestinationReported";
  if (isReport && event.report.term > migration.term && migration.tenure.doubt === null) doubt(migration, since, now);
};

/** An answer from the migrations bucket; true when it proves that this coordinator is the owner. */
export const tenureEvent = (
  migration: Migration,
  event: Extract<MigrationEventIn, { _tag: "SaveAnswered" | "SavedRead" }>,
  now: number,
  emit: (effect: MigrationEffect) => void,
): boolean => {
  const { tenure } = migration;
  if (tenure.pending === null) return false;
  if (event._tag === "SaveAnswered") {
    if (event.save !== tenure.pending) return false;
    if (event.outcome === "Lost") {
      emit({ _tag: "ReadSaved" });
      return false;
    }
    tenure.pending = null;
    if (event.outcome === "Unknown") {
      saveAgain(migration, now + SAVE_AGAIN_MS);
      return false;
    }
    tenure.revision = event.outcome.revision;
    if (tenure.doubt !== null && event.save > tenure.doubt.after) endDoubt(migration, tenure.doubt.since, now);
    return tenure.doubt === null;
  }
  tenure.pending = null;
  const { stored } = event;
  if (stored !== null && stored !== "Unknown" && stored.term > migration.term) migration.phase = { _tag: "Replaced" };
  // An earlier write of our own, whose answer was lost: go on from it. Anything older is a stale read.
  const isOurs = stored !== null && stored !== "Unknown" && stored.term === migration.term;
  const landedLate = isOurs && stored.revision > tenure.revision;
  if (landedLate) tenure.revision = stored.revision;
  saveAgain(migration, landedLate ? now : now + SAVE_AGAIN_MS);
  return false;
};

const saveAgain = ({ tenure }: Migration, at: number): void => {
  tenure.wanted = true;
  tenure.nextSaveAt = at;
};

/** Silence while nothing was heard here is nobody's silence: every clock that measures others is set forward. */
const endDoubt = (migration: Migration, since: number, now: number): void => {
  const shifted = (at: number): number => Math.min(now, at + (now - since));
  migration.tenure.doubt = null;
  migration.sourceHeardAt = shifted(migration.sourceHeardAt);
  migration.destinationHeardAt = shifted(migration.destinationHeardAt);
  migration.progress = { ...migration.progress, bestAt: shifted(migration.progress.bestAt) };
  migration.nextCommandAt = now;
};

export const saveIfDue = (migration: Migration, now: number, emit: (effect: MigrationEffect) => void): void => {
  const { tenure } = migration;
  if (!tenure.wanted || tenure.pending !== null || now < tenure.nextSaveAt) return;
  tenure.wanted = false;
  tenure.pending = ++tenure.saves;
  emit({ _tag: "Save", save: tenure.pending, revision: tenure.revision });
};
