/**
 * What the destination side of one migration is doing.
 *
 *     Preparing -> Ready (applies packets) -> Loading -> Committing -> Starting -> Closing -> Running
 *         |           |                         |            |                        |
 *         +-----------+-------------------------+------------+--> Discarding -> Failed +-> Lost
 *
 * The guest runs here only after the settled write of `destination` was won (O3). After that there is no way to Failed: one whose
 * process is gone before it ran is Lost, as it would be with its host.
 *
 * A loader that is restarted goes on with a session whose guest and fence survived: from Preparing to Ready again, as the same
 * incarnation (its file is locked, so the predecessor is gone, and what it acknowledged is in the guest's memory).
 */
import type { Failure, Manifest, Offer, OwnershipEntry, OwnershipRecord, Settlement } from "@godwit/protocol";
import type { Fence } from "./fence.ts";

export type Phase =
  | { readonly _tag: "Preparing" }
  | { readonly _tag: "Ready" }
  | { readonly _tag: "Loading" }
  | { readonly _tag: "Committing"; readonly settlement: Settlement }
  | { readonly _tag: "Starting" }
  | { readonly _tag: "Closing"; readonly settlement: Settlement }
  | { readonly _tag: "Running" }
  | { readonly _tag: "Lost" }
  | { readonly _tag: "Discarding" }
  | { readonly _tag: "Failed" };

export interface Destination {
  readonly migration: string;
  readonly guest: string;
  readonly node: string;
  /** The node it comes from. */
  readonly source: string;
  readonly startedAt: number;
  /** Of the session, not of the process. */
  readonly incarnation: string;
  /** How often a restarted loader has gone on with this session. */
  readonly life: number;
  readonly epoch: number;
  readonly offer: Offer;
  term: number;
  phase: Phase;
  /** Lets nothing in until the guest is prepared. */
  fence: Fence;
  /** What the record promises and at which revision; null until it says `switching`. */
  promise: { readonly manifest: Manifest; readonly revision: number } | null;
  /** The guest ran at the source, and shall run here; what the record says, once it was read. */
  wasRunning: boolean;
  revision: number;
  ops: number;
  failure: Failure | null;
  /** Why the incoming guest itself has ended; null while it lives. */
  guestEnded: Failure | null;
  heardAt: number;
  nextReportAt: number;
  nextStartAt: number;
  /** When a resumed session looks at the record again: who would have told it may be gone. */
  nextLookAt: number;
  concluded: boolean;
}

export type DestinationEvent =
  /** `words`: the fence's, empty or as a former life left them. */
  | { readonly _tag: "Prepared"; readonly words: Uint32Array }
  | { readonly _tag: "SwitchingTold"; readonly epoch: number }
  | { readonly _tag: "RecordRead"; readonly op: string; readonly entry: OwnershipEntry | null | "Unknown" }
  | {
      readonly _tag: "RecordWritten";
      readonly op: string;
      readonly outcome: "Unknown" | "Lost" | { readonly revision: number };
    }
  /** A batch of packets was applied; the fence has counted them. */
  | { readonly _tag: "PacketsApplied" }
  | { readonly _tag: "DeviceStateLoaded" }
  | { readonly _tag: "Resumed" }
  | { readonly _tag: "Discarded" }
  /** The guest has shut down or crashed, or its process is gone. */
  | { readonly _tag: "GuestEnded"; readonly failure: Failure }
  | { readonly _tag: "LocalFailed"; readonly step: LocalStep | "apply"; readonly failure: Failure }
  | { readonly _tag: "Abandon"; readonly failure: Failure }
  | { readonly _tag: "Heard" }
  /** The migration has ended; `failure`: without the guest having arrived. */
  | { readonly _tag: "Concluded"; readonly failure: Failure | null }
  | { readonly _tag: "Tick" };

export type LocalStep = "prepare" | "load-device-state" | "resume" | "discard";

export type DestinationEffect =
  | { readonly _tag: "Local"; readonly step: LocalStep }
  | { readonly _tag: "ReadRecord"; readonly op: string; readonly afterMs: number }
  | {
      readonly _tag: "WriteRecord";
      readonly record: OwnershipRecord;
      readonly revision: number;
      readonly afterMs: number;
    }
  | { readonly _tag: "Report" }
  | { readonly _tag: "WakeAt"; readonly at: number };
