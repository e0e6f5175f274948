/** Which migrations a coordinator takes over, and how it goes on with them. */
import { type Capabilities, isEnded, isInPostcopy } from "@godwit/protocol";
import { makeMigration } from "./migration.ts";
import type { Migration, SavedMigration } from "./migration-state.ts";

/** Numbers of parameter changes that each coordinator has for itself: a thousand a second for a quarter of an hour. */
const CHANGES_PER_TERM = 1_000_000;

export interface StoredMigration {
  readonly saved: SavedMigration;
  readonly revision: number;
}

/**
 * Migrations that nobody looks after: their owner is gone; or it is this coordinator, which does not know of them, because the
 * write that made it the owner landed after it had been given up.
 */
export const orphansOf = (
  stored: ReadonlyArray<StoredMigration>,
  self: string,
  isAlive: (owner: string) => boolean,
  isMine: (migration: string) => boolean,
): ReadonlyArray<StoredMigration> =>
  stored.filter(
    ({ saved: { owner, info } }) =>
      !isEnded(info.status) && !isMine(info.migration) && (owner === self || !isAlive(owner)),
  );

/** How long an ending is told again for its coordinator, ms: several rounds, and longer than a side that was cut off takes to come back. */
const TELL_ENDING_MS = 60_000;

/** Migrations whose coordinator has saved how they ended and may not have lived to tell it (R10). */
export const untoldOf = (
  stored: ReadonlyArray<StoredMigration>,
  isAlive: (owner: string) => boolean,
  now: number,
): ReadonlyArray<SavedMigration> =>
  stored.flatMap(({ saved }) => {
    const endedAt = saved.startedAt + saved.info["total-time"];
    return isEnded(saved.info.status) && !isAlive(saved.owner) && now - endedAt < TELL_ENDING_MS ? [saved] : [];
  });

/** What a take-over writes on the revision of the orphan it saw: of two successors one wins. */
export const takenOver = (saved: SavedMigration, owner: string): SavedMigration => ({
  ...saved,
  term: saved.term + 1,
  owner,
});

/** The migration of a take-over that was won as `revision`. `saved` is what was written. */
export const adopt = ({ saved, revision }: StoredMigration, now: number): Migration => {
  const migration = makeMigration({
    migration: saved.info.migration,
    guest: saved.info.guest,
    source: saved.info.source,
    destination: saved.info.destination,
    parameters: saved.parameters,
    capabilities: saved.capabilities as Capabilities,
    term: saved.term,
    owner: saved.owner,
    revision,
    attempt: saved.attempt,
    startedAt: saved.startedAt,
    now,
    // What was being undone goes on being undone: a cancel that was answered holds.
    phase: isInPostcopy(saved.info.status)
      ? { _tag: "Postcopy" }
      : saved.undoing === null
        ? { _tag: "Adopting" }
        : { _tag: "Aborting", next: saved.undoing },
  });
  migration.epoch = saved.epoch;
  // Both sides hear of the new term at once, so that whatever the predecessor still says is refused.
  migration.destinationToldAt = Number.NEGATIVE_INFINITY;
  // The source may have been told of a change that was never saved, or answered: what is saved holds, and is told again.
  migration.parametersRevision = saved.term * CHANGES_PER_TERM;
  migration.continuedAttempt = saved.continuedAttempt;
  migration.postcopyWanted = saved.postcopyWanted ?? false;
  migration.word = saved.word ?? null;
  migration.givingUp = saved.givenUp === true ? { settlement: null, isTold: false } : null;
  migration.setupMs = saved.info["setup-time"] ?? null;
  migration.status = saved.info.status;
  migration.failure = saved.failure;
  return migration;
};
