/**
 * What the save of one guest into a checkpoint is doing.
 *
 *     Describing -> OpeningTracker -> Storing (rounds) -> Pausing -> SavingDeviceState -> ShuttingGate -> Storing (last)
 *                                        ^      |                                                           |
 *                                        +- ShuttingGate <+                                                 v
 *       Ended(completed) <- [Uploading <-] Finishing <- Resuming <------------------------------- ShuttingGate
 *                        Ended(failed) <- Resuming <---- whatever fails, at any moment
 *
 * The guest runs until Pausing and from Resuming on; one that shall be stopped, or stands still already, is not tracked and has one
 * round. Each round has a gate within which workers write: the next one begins, and the guest goes on, when nobody is within any
 * more, so no page of an earlier moment lands on one of a later. The file becomes a checkpoint in Finishing, while the guest runs.
 */

import type * as Bitmap from "@godwit/memory/bitmap";
import type { Channels, Ledger, Pace } from "@godwit/multifd";
import type { Failure, Parameters } from "@godwit/protocol";

export type SavePhase =
  | { readonly _tag: "Describing" }
  | { readonly _tag: "OpeningTracker" }
  | { readonly _tag: "Storing"; readonly scanning: boolean }
  | { readonly _tag: "ShuttingGate"; readonly next: "round" | "last round" | "finish" }
  | { readonly _tag: "Pausing" }
  | { readonly _tag: "SavingDeviceState" }
  | { readonly _tag: "Resuming" }
  | { readonly _tag: "Finishing" }
  /** The file is whole, and on its way into an object store. */
  | { readonly _tag: "Uploading" }
  | { readonly _tag: "Ended"; readonly outcome: "completed" | "failed" };

export interface Save {
  readonly id: string;
  readonly guest: string;
  readonly node: string;
  readonly uri: string;
  readonly parameters: Parameters;
  /** Stop the guest first, and leave it stopped. */
  readonly stop: boolean;
  readonly checksums: boolean;
  /** The checkpoint belongs into an object store. */
  readonly upload: boolean;
  readonly startedAt: number;
  phase: SavePhase;
  /** The guest ran when the save began. */
  wasRunning: boolean;
  /** It stands still because of this save. */
  paused: boolean;
  blocks: ReadonlyArray<{ readonly name: string; readonly pages: number }>;
  ledger: Ledger.Ledger;
  readonly channels: Channels.Channels;
  readonly pace: Pace.Pace;
  /** The guest stands still in this round. */
  last: boolean;
  /** By block: the pages that the file holds. */
  present: ReadonlyArray<Bitmap.Bitmap>;
  /** By block and page; null unless they are wanted. */
  sums: ReadonlyArray<Uint32Array> | null;
  /** The file's length, bytes, once it is a checkpoint. */
  fileBytes: number;
  uploadedBytes: number;
  failure: Failure | null;
  /** The guest itself has ended: there is nothing to resume. */
  guestEnded: boolean;
  stoppedAt: number;
  downtimeMs: number;
  endedAt: number;
  workersLostAt: number | null;
  nextCheckAt: number;
  readonly meter: {
    writtenBytes: number;
    roundBytes: number;
    roundStartedAt: number;
    /** Bytes that are no zeros, each second. */
    bandwidth: number;
    ackMs: number;
    /** The least that a round began with, and when. */
    leastBytes: number;
    leastAt: number;
  };
}

export type SaveStep =
  | "describe"
  | "open-tracker"
  | "sync"
  | "open-gate"
  | "shut-gate"
  | "pause"
  | "save-device-state"
  | "resume"
  | "finish"
  | "upload";

export type SaveEvent =
  | {
      readonly _tag: "Described";
      readonly blocks: ReadonlyArray<{ readonly name: string; readonly pages: number }>;
      readonly running: boolean;
    }
  | { readonly _tag: "TrackerOpened" }
  | { readonly _tag: "GateOpened"; readonly round: number }
  | {
      readonly _tag: "Found";
      readonly round: number;
      readonly block: number;
      /** Pairs (first page, pages). */
      readonly runs: ReadonlyArray<number>;
    }
  | { readonly _tag: "Synced"; readonly round: number }
  | {
      readonly _tag: "Stored";
      readonly round: number;
      readonly item: number;
      readonly zeroMap: Uint8Array;
      readonly sums: Uint32Array;
    }
  | { readonly _tag: "Refused"; readonly round: number; readonly item: number; readonly reason: string }
  | { readonly _tag: "WorkerUp"; readonly worker: string }
  | { readonly _tag: "WorkerDown"; readonly worker: string }
  | { readonly _tag: "LinkRestored" }
  | { readonly _tag: "GateShut"; readonly round: number }
  | { readonly _tag: "Paused" }
  | { readonly _tag: "DeviceStateSaved" }
  | { readonly _tag: "Resumed" }
  | { readonly _tag: "Finished"; readonly fileBytes: number }
  | { readonly _tag: "PartUploaded"; readonly bytes: number }
  | { readonly _tag: "Uploaded" }
  | { readonly _tag: "GuestEnded"; readonly failure: Failure }
  | { readonly _tag: "LocalFailed"; readonly step: SaveStep; readonly failure: Failure }
  | { readonly _tag: "Cancel" }
  | { readonly _tag: "Tick" };

export type SaveEffect =
  | { readonly _tag: "Local"; readonly step: SaveStep; readonly round: number }
  /** Takes gate, file and tracker away, whoever is at them. */
  | { readonly _tag: "Abandon" }
  | { readonly _tag: "CloseTracker" }
  | {
      readonly _tag: "Dispatch";
      readonly worker: string;
      readonly item: Ledger.Item;
      readonly channel: number;
      readonly channelEpoch: number;
    }
  | { readonly _tag: "WakeAt"; readonly at: number };
