/** What time alone leads to: deadlines, questions to whoever is silent, and giving up whoever stays silent. */
import * as Convergence from "./convergence.ts";
import { devicesOf } from "./devices.ts";
import { mayEnd } from "./giving-up.ts";
import type { Migration } from "./migration-state.ts";
import { abort, type Emit, end, failure, header } from "./moves.ts";
import { reckon } from "./reckoning.ts";
import { wantSave } from "./tenure.ts";

/** A side that has been silent for this long is asked, ms: reports come every 200 ms while something moves. */
const INSPECT_AFTER_MS = 1000;
/** A loader that hears nobody for a minute frees its memory: it is spoken to so often, although it reports by itself, ms. */
const KEEP_ALIVE_MS = 10_000;
/**
 * Whoever does not answer for so long is lost, ms. Before the switchover the guest runs at the source whatever happens, so there is
 * time: a network that is away for half a minute shall cost that half minute, not the pages that were moved.
 */
const LOST_AFTER_MS = 60_000;
/** The same once the guest may stand still, or is waited for by who undoes the attempt, ms: the usual `switchover-deadline`. */
const LOST_IN_SWITCHOVER_MS = 15_000;

const lostAfterMs = ({ phase }: Migration): number =>
  phase._tag === "Switching" || phase._tag === "Aborting" || phase._tag === "Reckoning"
    ? LOST_IN_SWITCHOVER_MS
    : LOST_AFTER_MS;

export const tick = (migration: Migration, now: number, emit: Emit): void => {
  const { phase } = migration;
  if (phase._tag === "Ending" || phase._tag === "Ended") return;
  const beforeSwitchover =
    phase._tag === "Claiming" || phase._tag === "Preparing" || phase._tag === "Starting" || phase._tag === "Active";
  const late = beforeSwitchover
    ? Convergence.deadlinePassed(migration.progress, migration.parameters, now, devicesOf(migration))
    : null;
  // Precopy does not get there in time: the guest goes first, and its memory after it.
  if (late !== null && phase._tag === "Active" && mayWaitForPass(migration, now)) {
    if (!migration.postcopyWanted) wantSave(migration);
    migration.postcopyWanted = true;
  } else if (late !== null) return abort(migration, late, "failed");
  if (isLostAtBothSides(migration, now)) {
    migration.failure ??=
      migration.sourceReport?.failure ?? failure("source-lost", "bring pages", "both hosts are gone");
    return end(migration, "failed", now);
  }
  if (mayEnd(migration, now)) return end(migration, "failed", now);
  if (phase._tag !== "Postcopy" && now - migration.sourceHeardAt >= lostAfterMs(migration))
    return sourceSilent(migration, now);
  if (now - migration.destinationHeardAt >= LOST_AFTER_MS && (phase._tag === "Preparing" || phase._tag === "Active")) {
    const reason = `the loader of node ${migration.destination} has not answered for ${LOST_AFTER_MS} ms`;
    return abort(migration, failure("destination-lost", "move pages", reason), "failed");
  }
  if (now - migration.sourceHeardAt >= INSPECT_AFTER_MS)
    emit({ _tag: "ToSource", command: { _tag: "Inspect", ...header(migration) } });
  const silent = now - migration.destinationHeardAt >= INSPECT_AFTER_MS;
  if (migration.epoch !== 0 && (silent || now - migration.destinationToldAt >= KEEP_ALIVE_MS))
    inspectDestination(migration, now, emit);
};

/** Precopy did not end in time, and postcopy begins at its next pass; one that never comes ends the migration as the deadline would have. */
const mayWaitForPass = ({ capabilities, parameters, progress }: Migration, now: number): boolean =>
  capabilities["postcopy-ram"] &&
  now - progress.startedAt < parameters["migration-deadline"] + (parameters["stall-timeout"] || LOST_AFTER_MS);

/** The source has lost the guest's pages, and nobody at the destination says what became of it: both are gone. */
const isLostAtBothSides = ({ phase, sourceReport, destinationHeardAt }: Migration, now: number): boolean =>
  phase._tag === "Postcopy" && sourceReport?.phase === "failed" && now - destinationHeardAt >= LOST_AFTER_MS;

export const inspectDestination = (migration: Migration, now: number, emit: Emit): void => {
  migration.destinationToldAt = now;
  emit({ _tag: "ToDestination", command: { _tag: "Inspect", ...header(migration) } });
};

/** Nobody answers at the source. Before a switchover can have begun the guest simply runs there; after that the record tells. */
const sourceSilent = (migration: Migration, now: number): void => {
  const { phase } = migration;
  const reason = `the RAM sender of node ${migration.source} has not answered for ${lostAfterMs(migration)} ms`;
  const why = failure("source-lost", "move pages", reason);
  switch (phase._tag) {
    case "Claiming":
    case "Preparing":
    case "Starting":
      migration.failure ??= why;
      return end(migration, "failed", now);
    case "Reckoning":
      if (!phase.silent) migration.phase = { ...phase, silent: true };
      return;
    case "Aborting":
      return reckon(migration, why, phase.next, true);
    case "Active":
    case "Switching":
    case "Adopting":
      return reckon(migration, why, "failed", true);
    case "Postcopy":
    case "Ending":
    case "Ended":
    case "Replaced":
      return;
  }
};
