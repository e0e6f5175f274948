/** A migration's state machine: one event in, its effects out. No clock, no randomness, no I/O. */
import type { Capabilities, DestinationReport, Failure, OwnershipEntry, Parameters } from "@godwit/protocol";
import {
  sayCommand,
  sayContinue,
  sayParameters,
  sayParametersToDestination,
  sayStartPostcopy,
  sayToFetching,
} from "./commands.ts";
import { answerDestination, answerSource, sayConclusion } from "./conclusion.ts";
import * as GivingUp from "./giving-up.ts";
import { statusOf } from "./info.ts";
import type { Migration, MigrationEffect, MigrationEventIn, Phase } from "./migration-state.ts";
import { abort, type Emit, end, failure, nextAfter } from "./moves.ts";
import { fenceAllowed, recordRead, settlementEvent } from "./reckoning.ts";
import { inspectDestination, tick } from "./silence.ts";
import { sourceReported } from "./source-reports.ts";
import { isSaved, lookForDoubt, saveIfDue, tenureEvent, wantSave } from "./tenure.ts";

/** An unanswered command is said again after this, ms. */
const COMMAND_MS = 250;
/** How long a source that is there may take to tell how long the guest stood still, once all of its memory is at the destination, ms. */
const LAST_COUNTERS_MS = 2000;

export const makeMigration = (options: {
  readonly migration: string;
  readonly guest: string;
  readonly source: string;
  readonly destination: string;
  readonly parameters: Parameters;
  readonly capabilities: Capabilities;
  readonly term: number;
  /** The coordinator whose migration it is, and the revision of the write that made it so. */
  readonly owner: string;
  readonly revision: number;
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
  tenure: {
    owner: options.owner,
    revision: options.revision,
    wanted: false,
    saves: 0,
    pending: null,
    nextSaveAt: options.now,
    doubt: null,
  },
  attempt: options.attempt,
  parameters: options.parameters,
  parametersRevision: 0,
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
  fencedAfter: 0,
  continuedAttempt: null,
  postcopyWanted: false,
  word: null,
  givingUp: null,
  sourceHeardAt: options.now,
  destinationHeardAt: options.now,
  destinationToldAt: options.now,
  nextCommandAt: options.now,
  lastStepAt: options.now,
});

/** Advances `migration` (which it owns and changes) by one event. */
export const step = (migration: Migration, event: MigrationEventIn, now: number): MigrationEffect[] => {
  if (migration.phase._tag === "Replaced") return [];
  const effects: MigrationEffect[] = [];
  const emit: Emit = (effect) => effects.push(effect);
  const before = migration.phase;
  lookForDoubt(migration, event, now);
  if (event._tag === "SaveAnswered" || event._tag === "SavedRead") tenureAnswered(migration, event, now, emit);
  else if (migration.tenure.doubt === null) handle(migration, event, now, emit);
  // An operator's word is kept, and goes out, or to the owner, once it is known who that is.
  else if (isOperators(event)) handle(migration, event, now, () => {});
  if (hasBeenReplaced(migration)) return [...effects, { _tag: "Leave" }];
  // A new phase says its command at once; after that only when it seems lost.
  if (migration.phase !== before) migration.nextCommandAt = now;
  if (migration.tenure.doubt === null) {
    if (now >= migration.nextCommandAt) {
      migration.nextCommandAt = now + COMMAND_MS;
      sayCommand(migration, emit);
    }
    publish(migration, event, emit);
  }
  saveIfDue(migration, now, emit);
  const at = migration.tenure.doubt === null ? migration.nextCommandAt : now + COMMAND_MS;
  if (migration.phase._tag !== "Ended") emit({ _tag: "WakeAt", at });
  return effects;
};

const isOperators = ({ _tag }: MigrationEventIn): boolean =>
  ["Cancel", "Continue", "StartPostcopy", "SayToFetching", "GiveUp", "Tune"].includes(_tag);

const hasBeenReplaced = ({ phase }: Migration): boolean => phase._tag === "Replaced";

const tenureAnswered = (
  migration: Migration,
  event: Extract<MigrationEventIn, { _tag: "SaveAnswered" | "SavedRead" }>,
  now: number,
  emit: Emit,
): void => {
  if (!tenureEvent(migration, event, now, emit) || event._tag !== "SaveAnswered") return;
  fenceAllowed(migration, event.save, emit);
  GivingUp.writeAllowed(migration, event.save, emit);
  const { phase } = migration;
  if (phase._tag !== "Ending" || !isSaved(migration)) return;
  migration.phase = { _tag: "Ended", status: phase.status };
  sayConclusion(migration, now, emit);
};

const handle = (
  migration: Migration,
  event: Exclude<MigrationEventIn, { _tag: "SaveAnswered" | "SavedRead" }>,
  now: number,
  emit: Emit,
): void => {
  switch (event._tag) {
    case "SourceReported":
      // One that has forgotten a postcopy has nothing more to say of it.
      if (migration.phase._tag !== "Postcopy" || event.report.phase !== "unknown") migration.sourceHeardAt = now;
      if (migration.phase._tag === "Ended") return answerSource(migration, event.report, now, emit);
      sourceReported(migration, event.report, now, emit);
      sayStartPostcopy(migration, event.report, emit);
      return sayParameters(migration, event.report, emit);
    case "DestinationReported":
      // The same of one that has forgotten it: nobody brings pages there.
      if (migration.phase._tag !== "Postcopy" || event.report.phase !== "unknown") migration.destinationHeardAt = now;
      if (migration.phase._tag === "Ended") return answerDestination(migration, event.report, now, emit);
      // It must know of this coordinator before a word of the predecessor comes late, which may be to abandon the guest.
      if (event.report.term < migration.term) inspectDestination(migration, now, emit);
      destinationReported(migration, event.report, now, emit);
      return sayParametersToDestination(migration, event.report, emit);
    case "CommandRefused":
      // Later on both sides have agreed, and one that was started anew in another version is told of by its silence.
      if (BEFORE_IT_MOVES.has(migration.phase._tag)) abort(migration, event.failure, "failed");
      return;
    case "RecordRead":
      return recordAnswered(migration, event.entry, now, emit);
    case "RecordWritten":
      if (migration.phase._tag === "Postcopy")
        return GivingUp.settlementEvent(migration, { ...event, _tag: "Written" }, now, emit);
      return settlementEvent(migration, { ...event, _tag: "Written" }, now, emit);
    case "Cancel":
      return cancel(migration);
    case "Continue":
      // A successor that has not heard the source yet knows the status from its predecessor.
      if (statusOf(migration) !== "pre-switchover") return;
      migration.continuedAttempt = migration.attempt;
      wantSave(migration);
      return sayContinue(migration, emit);
    case "StartPostcopy":
      if (isOver(migration) || migration.phase._tag === "Postcopy") return;
      migration.postcopyWanted = true;
      wantSave(migration);
      if (migration.sourceReport !== null) sayStartPostcopy(migration, migration.sourceReport, emit);
      return;
    case "SayToFetching":
      if (migration.phase._tag !== "Postcopy") return;
      migration.word = { number: (migration.word?.number ?? 0) + 1, word: event.word };
      wantSave(migration);
      return sayToFetching(migration, emit);
    case "GiveUp":
      if (GivingUp.obstacleToGivingUp(migration, now) === null) GivingUp.giveUp(migration);
      return;
    case "Tune":
      if (isOver(migration)) return;
      migration.parameters = event.parameters;
      migration.parametersRevision++;
      wantSave(migration);
      if (migration.sourceReport !== null) sayParameters(migration, migration.sourceReport, emit);
      if (migration.destinationReport !== null)
        sayParametersToDestination(migration, migration.destinationReport, emit);
      return;
    case "Tick":
      return tick(migration, now, emit);
    case "LinkChanged":
      return;
  }
};

const recordAnswered = (
  migration: Migration,
  entry: OwnershipEntry | null | "Unknown",
  now: number,
  emit: Emit,
): void => {
  if (migration.phase._tag !== "Postcopy") return recordRead(migration, entry, now, emit);
  const op = migration.givingUp?.settlement?.record.op;
  if (op === undefined) return GivingUp.recordRead(migration, entry, now);
  GivingUp.settlementEvent(migration, { _tag: "Read", op, entry }, now, emit);
};

const BEFORE_IT_MOVES: ReadonlySet<Phase["_tag"]> = new Set(["Claiming", "Preparing", "Starting"]);

const isOver = ({ phase }: Migration): boolean => phase._tag === "Ending" || phase._tag === "Ended";

const destinationReported = (migration: Migration, report: DestinationReport, now: number, emit: Emit): void => {
  const { phase } = migration;
  if (isOver(migration)) return;
  if (phase._tag === "Postcopy") return postcopyReported(migration, report, now, emit);
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
    return abort(migration, why, nextAfter(why));
  }
  if (phase._tag === "Preparing" && report.phase === "ready") {
    if (migration.capabilities.encryption && report["refused-packets"] === undefined)
      return abort(migration, notSealed(migration), "failed");
    migration.phase = { _tag: "Starting", incarnation: report.incarnation };
    migration.sourceHeardAt = now;
  }
  // `running` ends nothing here: the source confirms it against the record, and gives the last counters.
};

/** A loader that does not know the capability takes it for granted, and so does one whose command was changed on its way. */
const notSealed = ({ destination }: Migration): Failure =>
  failure(
    "incompatible",
    "agree on capabilities",
    `capability encryption was asked for, and the loader of node ${destination} does not say that it opens sealed packets`,
  );

/** The guest is the destination's: whatever it says, and whether it says anything, there is no way back. */
const postcopyReported = (migration: Migration, report: DestinationReport, now: number, emit: Emit): void => {
  if (report.phase === "unknown" || report.epoch !== migration.epoch) return;
  migration.destinationReport = report;
  if (migration.word !== null && (report.word ?? 0) < migration.word.number) sayToFetching(migration, emit);
  // The source has the last counters; one that was restarted has not. It keeps the pages until the record is closed, which it is by now.
  const { phase } = migration.sourceReport ?? { phase: "unknown" };
  const hasTold = phase === "postcopy" || phase === "completed" || phase === "failed";
  const mayKnow = !hasTold && now - migration.sourceHeardAt < LAST_COUNTERS_MS;
  if (report.phase === "running" && !mayKnow) end(migration, "completed", now);
  if (report.phase === "failed") {
    migration.failure ??= report.failure ?? failure("internal", "load", "the destination gave no reason");
    end(migration, "failed", now);
  }
};

const cancel = (migration: Migration): void => {
  const why = failure("cancelled", "cancel", "cancelled by request");
  switch (migration.phase._tag) {
    case "Postcopy":
    case "Ending":
    case "Ended":
    case "Replaced":
      return;
    case "Aborting":
    case "Reckoning":
      // Being undone already: what was to follow is another attempt no more.
      if (migration.phase.next !== "retry") return;
      migration.failure ??= why;
      migration.phase = { ...migration.phase, next: "cancelled" };
      return wantSave(migration);
    default:
      return abort(migration, why, "cancelled");
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
    // So that a replica that cannot ask the owner shows no status of long ago.
    if (migration.phase._tag !== "Ended") wantSave(migration);
  } else if (event._tag === "SourceReported" && !newPass && !isOver(migration)) {
    emit({ _tag: "Publish", event: "PROGRESS" });
  }
};
