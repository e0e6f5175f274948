/**
 * A migration as its coordinator sees it.
 *
 *     Claiming -> Preparing -> Starting -> Active -> Switching -> Ended(completed)
 *        ^            |            |          |          |
 *        |            +------------+----------+----------+--> Aborting --> Ended(failed | cancelled)
 *        +------------------- next attempt ----------------------+
 *     Reckoning: the source cannot say how it ended, so the ownership record does
 *     Adopting: another coordinator's migration, until its source has said how it stands
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
  | { readonly _tag: "Aborting"; readonly next: "retry" | "failed" | "cancelled" }
  | {
      readonly _tag: "Reckoning";
      readonly next: "retry" | "failed" | "cancelled";
      /** Nobody answers at the source: it must be fenced off before an ending may be told. */
      readonly silent: boolean;
      readonly settlement: Settlement | null;
    }
  | { readonly _tag: "Ended"; readonly status: "completed" | "failed" | "cancelled" };

export interface Migration {
  readonly migration: string;
  readonly guest: string;
  readonly source: string;
  readonly destination: string;
  readonly capabilities: Capabilities;
  readonly startedAt: number;
  term: number;
  attempt: number;
  parameters: Parameters;
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
  /** The attempt that the operator let go on from pre-switchover; null: none yet. It is said again until the source has heard it. */
  continuedAttempt: number | null;
  sourceHeardAt: number;
  destinationHeardAt: number;
  destinationToldAt: number;
  nextCommandAt: number;
}

export type MigrationEventIn =
  | { readonly _tag: "SourceReported"; readonly report: SourceReport }
  | { readonly _tag: "DestinationReported"; readonly report: DestinationReport }
  | { readonly _tag: "RecordRead"; readonly entry: OwnershipEntry | null | "Unknown" }
  | {
      readonly _tag: "RecordWritten";
      readonly op: string;
      readonly outcome: "Unknown" | "Lost" | { readonly revision: number };
    }
  | { readonly _tag: "Cancel" }
  | { readonly _tag: "Continue" }
  | { readonly _tag: "Tune"; readonly parameters: Parameters }
  | { readonly _tag: "Tick" };

export type MigrationEffect =
  | { readonly _tag: "ToSource"; readonly command: SourceCommand }
  | { readonly _tag: "ToDestination"; readonly command: DestinationCommand }
  | { readonly _tag: "ReadRecord" }
  | { readonly _tag: "WriteRecord"; readonly record: OwnershipRecord; readonly revision: number }
  | { readonly _tag: "Save" }
  | { readonly _tag: "Publish"; readonly event: MigrationEvent["event"] }
  | { readonly _tag: "WakeAt"; readonly at: number };

/** What is kept in the migrations bucket: enough for another coordinator to take over. */
export interface SavedMigration {
  readonly term: number;
  readonly owner: string;
  readonly attempt: number;
  readonly startedAt: number;
  readonly parameters: Parameters;
  readonly capabilities: Record<string, boolean>;
  readonly failure: Failure | null;
  readonly info: MigrationInfo;
}
