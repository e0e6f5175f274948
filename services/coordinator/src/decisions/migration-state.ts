/**
 * A migration as its coordinator sees it.
 *
 *     Claiming -> Preparing -> Starting -> Active -> Switching --> Ending(completed) --> Ended
 *        ^            |            |          |          |
 *        |            +------------+----------+----------+--> Aborting --> Ending(failed | cancelled) --> Ended
 *        +------------------- next attempt ----------------------+
 *     Switching -> Postcopy -> Ending(completed): the guest runs at the destination, its pages follow; nothing can be undone any more
 *     Reckoning: the source cannot say how it ended, so the ownership record does
 *     Adopting: another coordinator's migration, until its source has said how it stands
 *     Ending: how it ended is known, and is being saved; nobody is told before, so that no successor tells it otherwise (R10)
 *     Replaced: from any phase, when the migrations bucket shows that another coordinator has taken over (`tenure.ts`)
 */
import type {
  Capabilities,
  DestinationCommand,
  DestinationReport,
  Failure,
  MigrationEvent,
  MigrationInfo,
  MigrationStatus,
  OwnershipEntry,
  OwnershipRecord,
  Parameters,
  Settlement,
  SourceCommand,
  SourceReport,
} from "@godwit/protocol";
import type { Progress } from "./convergence.ts";

export type Phase =
  | { readonly _tag: "Adopting" }
  | { readonly _tag: "Claiming" }
  | { readonly _tag: "Preparing" }
  | { readonly _tag: "Starting"; readonly incarnation: string }
  | { readonly _tag: "Active" }
  | { readonly _tag: "Switching" }
  | { readonly _tag: "Postcopy" }
  | { readonly _tag: "Aborting"; readonly next: Next }
  | {
      readonly _tag: "Reckoning";
      readonly next: Next;
      /** Nobody answers at the source: it must be fenced off before an ending may be told. */
      readonly silent: boolean;
      /** Reads of the record so far that decided nothing. */
      readonly looks: number;
      readonly settlement: Settlement | null;
    }
  | { readonly _tag: "Ending"; readonly status: EndStatus }
  | { readonly _tag: "Ended"; readonly status: EndStatus }
  | { readonly _tag: "Replaced" };

export type EndStatus = "completed" | "failed" | "cancelled";
/** What shall follow once an attempt has been undone. */
export type Next = "retry" | "failed" | "cancelled";

/** What this coordinator knows of its own ownership: a write of the migrations bucket that it wins is the only proof (`tenure.ts`). */
export interface Tenure {
  readonly owner: string;
  /** Revision in the migrations bucket that the next save replaces. */
  revision: number;
  /** Something that a successor must know has changed since the last save. */
  wanted: boolean;
  /** Saves so far; each has its number. */
  saves: number;
  /** The save that is on its way; null: none. */
  pending: number | null;
  nextSaveAt: number;
  /** Set while it is not known whether another coordinator has taken over: only a save with a higher number than `after` tells. */
  doubt: { readonly since: number; readonly after: number } | null;
}

export interface Migration {
  readonly migration: string;
  readonly guest: string;
  readonly source: string;
  readonly destination: string;
  readonly capabilities: Capabilities;
  readonly startedAt: number;
  readonly term: number;
  readonly tenure: Tenure;
  attempt: number;
  parameters: Parameters;
  /** Grows with each change of `parameters`: the source's report shows which one it has. */
  parametersRevision: number;
  phase: Phase;
  epoch: number;
  sourceReport: SourceReport | null;
  destinationReport: DestinationReport | null;
  progress: Progress;
  /** Why it is being ended; the first reason stays (R10). */
  failure: Failure | null;
  expectedDowntimeMs: number | null;
  setupMs: number | null;
  endedAt: number | null;
  status: MigrationStatus;
  passes: number;
  /** Writes of the ownership record so far: their operation ids must differ. */
  ops: number;
  /** Only a save with a higher number than this one allows the next write of the ownership record. */
  fencedAfter: number;
  /** The attempt that the operator let go on from pre-switchover; null: none yet. It is said again until the source has heard it. */
  continuedAttempt: number | null;
  /** Postcopy shall be started now: by the operator, or because precopy does not get there. */
  postcopyWanted: boolean;
  /** The operator's words to a postcopy (pause, recover): the last one, and its number. */
  word: { readonly number: number; readonly word: "Pause" | "Recover" } | null;
  /** The operator has given the guest of a postcopy up, which the ownership record is to say; `settlement` null: it is being read; null: nobody has. */
  givingUp: { settlement: Settlement | null; isTold: boolean } | null;
  sourceHeardAt: number;
  destinationHeardAt: number;
  destinationToldAt: number;
  nextCommandAt: number;
  /** A gap between two steps is a time in which this coordinator itself stood still. */
  lastStepAt: number;
}

export type MigrationEventIn =
  | { readonly _tag: "SourceReported"; readonly report: SourceReport }
  | { readonly _tag: "DestinationReported"; readonly report: DestinationReport }
  /** A side speaks another version of the protocol, and will understand no command. */
  | { readonly _tag: "CommandRefused"; readonly failure: Failure }
  | { readonly _tag: "RecordRead"; readonly entry: OwnershipEntry | null | "Unknown" }
  | {
      readonly _tag: "RecordWritten";
      readonly op: string;
      readonly outcome: "Unknown" | "Lost" | { readonly revision: number };
    }
  /** Answers the save of this number. */
  | {
      readonly _tag: "SaveAnswered";
      readonly save: number;
      readonly outcome: "Unknown" | "Lost" | { readonly revision: number };
    }
  | { readonly _tag: "SavedRead"; readonly stored: StoredTerm | null | "Unknown" }
  /** This coordinator's own link broke, or is back: meanwhile it was deaf and dumb. */
  | { readonly _tag: "LinkChanged" }
  | { readonly _tag: "Cancel" }
  | { readonly _tag: "Continue" }
  | { readonly _tag: "StartPostcopy" }
  | { readonly _tag: "SayToFetching"; readonly word: "Pause" | "Recover" }
  | { readonly _tag: "GiveUp" }
  | { readonly _tag: "Tune"; readonly parameters: Parameters }
  | { readonly _tag: "Tick" };

export type MigrationEffect =
  | { readonly _tag: "ToSource"; readonly command: SourceCommand }
  | { readonly _tag: "ToDestination"; readonly command: DestinationCommand }
  | { readonly _tag: "ReadRecord" }
  | { readonly _tag: "WriteRecord"; readonly record: OwnershipRecord; readonly revision: number }
  /** Write `savedOf(migration)` with a compare-and-set on this revision. */
  | { readonly _tag: "Save"; readonly save: number; readonly revision: number }
  /** Read what is stored: a save was refused. */
  | { readonly _tag: "ReadSaved" }
  | { readonly _tag: "Publish"; readonly event: MigrationEvent["event"] }
  | { readonly _tag: "WakeAt"; readonly at: number }
  /** It is another coordinator's: nothing more comes of this session, and requests go to the owner. */
  | { readonly _tag: "Leave" };

/** Whose the stored migration is: a take-over raises the term, so a term belongs to one coordinator. */
export interface StoredTerm {
  readonly term: number;
  readonly revision: number;
}

/** What is kept in the migrations bucket: enough for another coordinator to take over. */
export interface SavedMigration {
  readonly term: number;
  readonly owner: string;
  readonly attempt: number;
  readonly epoch: number;
  readonly startedAt: number;
  readonly parameters: Parameters;
  readonly continuedAttempt: number | null;
  readonly postcopyWanted?: boolean;
  readonly word?: Migration["word"];
  readonly givenUp?: boolean;
  /** What shall follow the attempt that is being undone; null: none is. */
  readonly undoing: Next | null;
  readonly capabilities: Record<string, boolean>;
  readonly failure: Failure | null;
  readonly info: MigrationInfo;
}
