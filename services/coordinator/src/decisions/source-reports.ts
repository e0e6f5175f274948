/** What a source's report leads to. */
import type { Epoch, SourceReport } from "@godwit/protocol";
import { sayContinue } from "./commands.ts";
import * as Convergence from "./convergence.ts";
import { devicesOf } from "./devices.ts";
import type { Migration } from "./migration-state.ts";
import { abort, type Emit, end, failure, finish, header, nextAfter, settleNext } from "./moves.ts";
import { reckon } from "./reckoning.ts";
import { wantSave } from "./tenure.ts";

export const sourceReported = (migration: Migration, report: SourceReport, now: number, emit: Emit): void => {
  const { phase } = migration;
  if (phase._tag === "Ending" || phase._tag === "Ended") return;
  // Said before this coordinator took over: how it stands now is what it answers to the first question.
  if (phase._tag === "Adopting" && report.term !== migration.term) return;
  if (report.phase === "unknown") {
    // The same process knew the migration before: this answer was overtaken.
    if (report.incarnation !== migration.sourceReport?.incarnation) sourceForgot(migration);
    return;
  }
  if (report.attempt > migration.attempt) {
    // Begun by a predecessor that could not save it any more: only a successor that has heard nothing yet can learn of it so.
    if (migration.term === 1 || migration.sourceReport !== null) return;
    migration.attempt = report.attempt;
    wantSave(migration);
  }
  if (report.attempt < migration.attempt) {
    // The predecessor had begun this attempt, and its claim never arrived.
    if (phase._tag === "Adopting") migration.phase = { _tag: "Claiming" };
    // Only an older attempt ever began there, and it has ended: of ours there is nothing to undo.
    const neverBegan = migration.sourceReport === null;
    if (phase._tag === "Aborting" && neverBegan && report.phase === "failed") finish(migration, phase.next, now);
    return;
  }
  migration.sourceReport = report;
  if (report.phase === "pre-switchover" && migration.continuedAttempt === migration.attempt)
    sayContinue(migration, emit);
  if (report.phase === "completed") return end(migration, "completed", now);
  if (report.phase === "postcopy") {
    if (phase._tag === "Postcopy") return;
    migration.epoch = report.epoch;
    migration.phase = { _tag: "Postcopy" };
    migration.failure = null;
    return wantSave(migration);
  }
  // The guest is at the destination, which may have all of it by now: its word counts.
  if (phase._tag === "Postcopy") return;
  if (report.phase === "failed") return sourceFailed(migration, report, now);
  switch (phase._tag) {
    case "Adopting":
      return adopt(migration, report, now);
    case "Claiming":
      if (report.phase === "claiming") return;
      if (report.phase !== "claimed") return adopt(migration, report, now);
      migration.epoch = report.epoch;
      migration.phase = { _tag: "Preparing" };
      migration.destinationHeardAt = now;
      return;
    case "Starting":
      if (report.phase === "claimed" || report.epoch !== migration.epoch) return;
      migration.phase = { _tag: "Active" };
      migration.setupMs ??= now - migration.startedAt;
      return judge(migration, report, now, emit);
    case "Active":
      if (report.phase !== "precopy") migration.phase = { _tag: "Switching" };
      return judge(migration, report, now, emit);
    case "Switching":
      // A verdict that was lost left the source in precopy: it asks again, and gets one.
      if (report.phase === "precopy") migration.phase = { _tag: "Active" };
      return judge(migration, report, now, emit);
    case "Reckoning":
      // It only slept: it can be told.
      migration.phase = { _tag: "Aborting", next: phase.next };
      return;
    case "Preparing":
    case "Aborting":
    case "Replaced":
      return;
  }
};

const mayPostcopy = ({ capabilities }: Migration): boolean => capabilities["postcopy-ram"];

/** By the operator's word, or by `postcopy-after-rounds`. */
const isPostcopyDue = (migration: Migration, round: number): boolean => {
  const after = migration.parameters["postcopy-after-rounds"];
  return mayPostcopy(migration) && (migration.postcopyWanted || (after !== 0 && round > after));
};

/** Answers a source that wants to know whether to switch over. */
const judge = (migration: Migration, report: SourceReport, now: number, emit: Emit): void => {
  const pass = report.verdict;
  if (pass === undefined || report.phase !== "precopy") return;
  const verdict = Convergence.judge(pass, migration.progress, migration.parameters, now, devicesOf(migration));
  if (verdict._tag === "GiveUp" && !mayPostcopy(migration)) return abort(migration, verdict.failure, "failed");
  if (verdict._tag !== "GiveUp") migration.expectedDowntimeMs = verdict.expectedDowntimeMs;
  if (verdict._tag === "Iterate") migration.progress = verdict.progress;
  const word =
    verdict._tag === "SwitchOver"
      ? "switch-over"
      : verdict._tag === "GiveUp" || isPostcopyDue(migration, pass.round)
        ? "start-postcopy"
        : "iterate";
  emit({
    _tag: "ToSource",
    command: { _tag: "Verdict", ...header(migration), epoch: report.epoch as Epoch, round: pass.round, verdict: word },
  });
};

/** Another coordinator's migration: go on from where its source is. */
const adopt = (migration: Migration, report: SourceReport, now: number): void => {
  migration.epoch = report.epoch;
  switch (report.phase) {
    case "claiming":
    case "claimed":
      // Whether the destination was prepared is not known: a fresh attempt settles it.
      return abort(migration, failure("source-lost", "take over", "the coordinator was restarted"), "retry");
    case "precopy":
      migration.phase = { _tag: "Active" };
      migration.destinationHeardAt = now;
      return;
    default:
      migration.phase = { _tag: "Switching" };
      return;
  }
};

const sourceFailed = (migration: Migration, report: SourceReport, now: number): void => {
  const why = report.failure ?? failure("internal", "migrate", "the source gave no reason");
  const { phase } = migration;
  const wanted = phase._tag === "Aborting" || phase._tag === "Reckoning" ? phase.next : nextAfter(why);
  // Fenced off, it does not know by whom; the record does.
  if (why.code === "fenced") {
    if (phase._tag !== "Reckoning") reckon(migration, why, wanted, false);
    return;
  }
  const next = settleNext(migration, why, wanted);
  finish(migration, next === "failed" && why.code === "cancelled" ? "cancelled" : next, now);
};

/** The source process knows nothing of this migration: it was restarted. */
const sourceForgot = (migration: Migration): void => {
  const why = failure("source-lost", "move pages", "the RAM sender was restarted");
  switch (migration.phase._tag) {
    case "Claiming":
    // Its successor keeps the pages until the record is closed.
    case "Postcopy":
    case "Ending":
    case "Ended":
    case "Replaced":
      return;
    case "Reckoning":
      if (migration.phase.silent && migration.phase.settlement === null)
        migration.phase = { ...migration.phase, silent: false };
      return;
    case "Aborting":
      return reckon(migration, why, migration.phase.next, false);
    case "Preparing":
    case "Starting":
    case "Active":
    case "Adopting":
    case "Switching":
      return reckon(migration, why, "retry", false);
  }
};
