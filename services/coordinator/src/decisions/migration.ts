/** A migration's state machine: one event in, its effects out. No clock, no randomness, no I/O. */
import type { Capabilities, DestinationReport, Epoch, Incarnation, Parameters, SourceReport } from "@godwit/protocol";
import * as Convergence from "./convergence.ts";
import { statusOf } from "./info.ts";
import type { Migration, MigrationEffect, MigrationEventIn, Phase } from "./migration-state.ts";
import { abort, type Emit, end, failure, finish, header, settleNext } from "./moves.ts";
import { reckon, reckonAgain, recordRead, settlementEvent } from "./reckoning.ts";

/** An unanswered command is said again after this, ms. */
const COMMAND_MS = 250;
/** A side that has been silent for this long is asked, ms: reports come every 200 ms while something moves. */
const INSPECT_AFTER_MS = 1000;
/** A loader that hears nobody for a minute frees its memory: it is spoken to so often, although it reports by itself, ms. */
const KEEP_ALIVE_MS = 10_000;
/** Nobody answers for this long while nothing is at stake: the side is lost, ms. */
const LOST_AFTER_MS = 15_000;
export const makeMigration = (options: {
  readonly migration: string;
  readonly guest: string;
  readonly source: string;
  readonly destination: string;
  readonly parameters: Parameters;
  readonly capabilities: Capabilities;
  readonly term: number;
  readonly attempt: number;
  readonly startedAt: number;
  readonly now: number;
  readonly phase: Phase;
}): Migration => ({
  migration: options.migration,
  guest: options.guest,
  source: options.source,
  destination: options.destination,
  capabilities: options.capabilities,
  startedAt: options.startedAt,
  term: options.term,
  attempt: options.attempt,
  parameters: options.parameters,
  phase: options.phase,
  epoch: 0,
  sourceReport: null,
  destinationReport: null,
  progress: { startedAt: options.startedAt, bestRemaining: Number.POSITIVE_INFINITY, bestAt: options.now },
  failure: null,
  expectedDowntimeMs: null,
  setupMs: null,
  endedAt: null,
  status: "none",
  passes: 0,
  ops: 0,
  continuedAttempt: null,
  sourceHeardAt: options.now,
  destinationHeardAt: options.now,
  destinationToldAt: options.now,
  nextCommandAt: options.now,
});

/** Advances `migration` (which it owns and changes) by one event. */
export const step = (migration: Migration, event: MigrationEventIn, now: number): MigrationEffect[] => {
  const effects: MigrationEffect[] = [];
  const emit: Emit = (effect) => effects.push(effect);
  const before = migration.phase;
  handle(migration, event, now, emit);
  // A new phase says its command at once; after that only when it seems lost.
  if (migration.phase !== before) migration.nextCommandAt = now;
  if (now >= migration.nextCommandAt) {
    migration.nextCommandAt = now + COMMAND_MS;
    sayCommand(migration, emit);
  }
  publish(migration, event, emit);
  if (migration.phase._tag !== "Ended") emit({ _tag: "WakeAt", at: migration.nextCommandAt });
  return effects;
};

const handle = (migration: Migration, event: MigrationEventIn, now: number, emit: Emit): void => {
  switch (event._tag) {
    case "SourceReported":
      if (event.report.term > migration.term) return;
      migration.sourceHeardAt = now;
      return sourceReported(migration, event.report, now, emit);
    case "DestinationReported":
      migration.destinationHeardAt = now;
      return destinationReported(migration, event.report, now);
    case "RecordRead":
      return recordRead(migration, event.entry, now, emit);
    case "RecordWritten":
      return settlementEvent(migration, { ...event, _tag: "Written" }, now, emit);
    case "Cancel":
      return cancel(migration);
    case "Continue":
      if (migration.sourceReport?.phase !== "pre-switchover") return;
      migration.continuedAttempt = migration.attempt;
      return sayContinue(migration, emit);
    case "Tune":
      if (migration.phase._tag === "Ended") return;
      migration.parameters = event.parameters;
      emit({ _tag: "Save" });
      emit({
        _tag: "ToSource",
        command: {
          _tag: "Tune",
          ...header(migration),
          epoch: Math.max(1, migration.epoch) as Epoch,
          parameters: event.parameters,
        },
      });
      return;
    case "Tick":
      return tick(migration, now, emit);
  }
};

const sourceReported = (migration: Migration, report: SourceReport, now: number, emit: Emit): void => {
  const { phase } = migration;
  if (phase._tag === "Ended") return straggler(migration, report, emit);
  if (report.phase === "unknown") {
    // The same process knew the migration before: this answer was overtaken.
    if (report.incarnation !== migration.sourceReport?.incarnation) sourceForgot(migration);
    return;
  }
  if (report.attempt !== migration.attempt) {
    // Only an older attempt ever began there, and it has ended: of ours there is nothing to undo.
    const neverBegan = migration.sourceReport === null && report.attempt < migration.attempt;
    if (phase._tag === "Aborting" && neverBegan && report.phase === "failed") finish(migration, phase.next, now, emit);
    return;
  }
  migration.sourceReport = report;
  if (report.phase === "pre-switchover" && migration.continuedAttempt === migration.attempt)
    sayContinue(migration, emit);
  if (report.phase === "completed") return end(migration, "completed", now, emit);
  if (report.phase === "failed") return sourceFailed(migration, report, now, emit);
  switch (phase._tag) {
    case "Adopting":
      return adopt(migration, report, now);
    case "Claiming":
      if (report.phase !== "claimed") return;
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
      return;
  }
};

/** Not to a source that is being told to stop: of two words that contradict each other the later one, to cancel, holds. */
const sayContinue = (migration: Migration, emit: Emit): void => {
  if (migration.phase._tag !== "Active" && migration.phase._tag !== "Switching") return;
  emit({ _tag: "ToSource", command: { _tag: "Continue", ...header(migration), epoch: migration.epoch as Epoch } });
};

/** A source that wakes up after its migration has ended is told so. */
const straggler = (migration: Migration, report: SourceReport, emit: Emit): void => {
  if (report.phase === "unknown" || report.phase === "completed" || report.phase === "failed") return;
  const why = migration.failure ?? failure("fenced", "migrate", "the migration has ended");
  emit({ _tag: "ToSource", command: { _tag: "Abort", ...header(migration), failure: why } });
};

/** Answers a source that wants to know whether to switch over. */
const judge = (migration: Migration, report: SourceReport, now: number, emit: Emit): void => {
  const pass = report.verdict;
  if (pass === undefined || report.phase !== "precopy") return;
  const verdict = Convergence.judge(pass, migration.progress, migration.parameters, now);
  if (verdict._tag === "GiveUp") return abort(migration, verdict.failure, "failed");
  migration.expectedDowntimeMs = verdict.expectedDowntimeMs;
  if (verdict._tag === "Iterate") migration.progress = verdict.progress;
  const word = verdict._tag === "Iterate" ? "iterate" : "switch-over";
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

const sourceFailed = (migration: Migration, report: SourceReport, now: number, emit: Emit): void => {
  const why = report.failure ?? failure("internal", "migrate", "the source gave no reason");
  const { phase } = migration;
  const wanted = phase._tag === "Aborting" || phase._tag === "Reckoning" ? phase.next : "failed";
  // Fenced off, it does not know by whom; the record does.
  if (why.code === "fenced") {
    if (phase._tag !== "Reckoning") reckon(migration, why, wanted, false);
    return;
  }
  const next = settleNext(migration, why, wanted);
  finish(migration, next === "failed" && why.code === "cancelled" ? "cancelled" : next, now, emit);
};

/** The source process knows nothing of this migration: it was restarted. */
const sourceForgot = (migration: Migration): void => {
  const why = failure("source-lost", "move pages", "the RAM sender was restarted");
  switch (migration.phase._tag) {
    case "Claiming":
    case "Ended":
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

const destinationReported = (migration: Migration, report: DestinationReport, now: number): void => {
  const { phase } = migration;
  if (phase._tag === "Ended") return;
  if (report.phase === "unknown") {
    if (report.incarnation === migration.destinationReport?.incarnation) return;
    // It was restarted, and with it the incoming guest's session is gone (O6).
    if (phase._tag === "Starting" || phase._tag === "Active" || phase._tag === "Switching") {
      abort(migration, failure("destination-lost", "move pages", "the destination loader was restarted"), "retry");
    }
    return;
  }
  if (report.epoch !== migration.epoch) return;
  migration.destinationReport = report;
  // Where the attempt is being undone, or the record is asked, this adds nothing.
  if (report.phase === "failed" && phase._tag !== "Aborting" && phase._tag !== "Reckoning") {
    const why = report.failure ?? failure("internal", "load", "the destination gave no reason");
    return abort(migration, why, "failed");
  }
  if (phase._tag === "Preparing" && report.phase === "ready") {
    migration.phase = { _tag: "Starting", incarnation: report.incarnation };
    migration.sourceHeardAt = now;
  }
  // `running` ends nothing here: the source confirms it against the record, and gives the last counters.
};

const cancel = (migration: Migration): void => {
  const why = failure("cancelled", "cancel", "cancelled by request");
  switch (migration.phase._tag) {
    case "Ended":
      return;
    case "Aborting":
    case "Reckoning":
      // Being undone already: what was to follow is another attempt no more.
      if (migration.phase.next !== "retry") return;
      migration.failure ??= why;
      migration.phase = { ...migration.phase, next: "cancelled" };
      return;
    default:
      return abort(migration, why, "cancelled");
  }
};

const tick = (migration: Migration, now: number, emit: Emit): void => {
  const { phase } = migration;
  if (phase._tag === "Ended") return;
  const beforeSwitchover =
    phase._tag === "Claiming" || phase._tag === "Preparing" || phase._tag === "Starting" || phase._tag === "Active";
  const late = beforeSwitchover ? Convergence.deadlinePassed(migration.progress, migration.parameters, now) : null;
  if (late !== null) return abort(migration, late, "failed");
  if (now - migration.sourceHeardAt >= LOST_AFTER_MS) return sourceSilent(migration, now, emit);
  if (now - migration.destinationHeardAt >= LOST_AFTER_MS && (phase._tag === "Preparing" || phase._tag === "Active")) {
    const reason = `the loader of node ${migration.destination} has not answered for ${LOST_AFTER_MS} ms`;
    return abort(migration, failure("destination-lost", "move pages", reason), "failed");
  }
  if (now - migration.sourceHeardAt >= INSPECT_AFTER_MS)
    emit({ _tag: "ToSource", command: { _tag: "Inspect", ...header(migration) } });
  const silent = now - migration.destinationHeardAt >= INSPECT_AFTER_MS;
  if (migration.epoch !== 0 && (silent || now - migration.destinationToldAt >= KEEP_ALIVE_MS)) {
    migration.destinationToldAt = now;
    emit({ _tag: "ToDestination", command: { _tag: "Inspect", ...header(migration) } });
  }
};

/** Nobody answers at the source. Before a switchover can have begun the guest simply runs there; after that the record tells. */
const sourceSilent = (migration: Migration, now: number, emit: Emit): void => {
  const { phase } = migration;
  const reason = `the RAM sender of node ${migration.source} has not answered for ${LOST_AFTER_MS} ms`;
  const why = failure("source-lost", "move pages", reason);
  switch (phase._tag) {
    case "Claiming":
    case "Preparing":
    case "Starting":
      migration.failure ??= why;
      return end(migration, "failed", now, emit);
    case "Reckoning":
      if (!phase.silent) migration.phase = { ...phase, silent: true };
      return;
    case "Aborting":
      return reckon(migration, why, phase.next, true);
    case "Active":
    case "Switching":
    case "Adopting":
      return reckon(migration, why, "failed", true);
    case "Ended":
      return;
  }
};

/** The command that the present phase waits on. */
const sayCommand = (migration: Migration, emit: Emit): void => {
  const { phase } = migration;
  const shared = header(migration);
  switch (phase._tag) {
    case "Claiming":
      return emit({
        _tag: "ToSource",
        command: {
          _tag: "Claim",
          ...shared,
          attempt: migration.attempt,
          guest: migration.guest,
          parameters: migration.parameters,
          capabilities: migration.capabilities,
        },
      });
    case "Preparing": {
      const offer = migration.sourceReport?.offer;
      // A source that has claimed and offers nothing has nothing to move; the deadline ends that.
      if (offer === undefined) return;
      return emit({
        _tag: "ToDestination",
        command: {
          _tag: "Prepare",
          ...shared,
          epoch: migration.epoch as Epoch,
          guest: migration.guest,
          source: migration.source,
          offer,
          parameters: migration.parameters,
          capabilities: migration.capabilities,
        },
      });
    }
    case "Starting":
      return emit({
        _tag: "ToSource",
        command: {
          _tag: "Start",
          ...shared,
          epoch: migration.epoch as Epoch,
          destination: migration.destination,
          incarnation: phase.incarnation as Incarnation,
        },
      });
    case "Adopting":
      return emit({ _tag: "ToSource", command: { _tag: "Inspect", ...shared } });
    case "Aborting": {
      const why = migration.failure ?? failure("internal", "retry", "another attempt begins");
      emit({ _tag: "ToSource", command: { _tag: "Abort", ...shared, failure: why } });
      if (migration.epoch !== 0) emit({ _tag: "ToDestination", command: { _tag: "Abandon", ...shared, failure: why } });
      return;
    }
    case "Reckoning":
      return reckonAgain(migration, emit);
    case "Active":
    case "Switching":
    case "Ended":
      return;
  }
};

const publish = (migration: Migration, event: MigrationEventIn, emit: Emit): void => {
  const status = statusOf(migration);
  const passes = migration.sourceReport?.ram?.["dirty-sync-count"] ?? migration.passes;
  const newPass = passes > migration.passes;
  migration.passes = passes;
  if (newPass) emit({ _tag: "Publish", event: "MIGRATION_PASS" });
  if (status !== migration.status) {
    migration.status = status;
    emit({ _tag: "Publish", event: "MIGRATION" });
  } else if (event._tag === "SourceReported" && !newPass && migration.phase._tag !== "Ended") {
    emit({ _tag: "Publish", event: "PROGRESS" });
  }
};
