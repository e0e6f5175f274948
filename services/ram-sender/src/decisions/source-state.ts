/**
 * What the source side of one migration is doing.
 *
 *     Claiming -> Claimed -> OpeningTracker -> Precopy (rounds) -> Stopping -> StoppingDevices [-> PreSwitchover] -> SavingDeviceState
 *                                                                                                                   |
 *                                                                                          SavingDevices <- FinalSync +
 *                                                                                                 |
 *     Ended(completed) <- Discarding <--- record: destination --- AwaitingCommit <--- record: switching --- Switching
 *     Ended(failed) <- Releasing <- Resuming <- ReleasingDevices <- TakingBack <---- deadline, abort, loader's failure ---+
 *
 * The guest runs in Claiming ... Precopy, and again after Resuming. In between it is stopped, and only a settled
 * compare-and-set of the ownership record lets it go on (O4, O5). In a postcopy the guest's memory is kept, and nothing is begun with
 * it, until the record says that the destination has all of it: AwaitingCommit -> Serving -> Discarding. A guest that ends by itself fails the attempt, until all of it
 * is promised to the destination: from Switching on the commit or the deadline decides.
 */
import type * as Bitmap from "@godwit/memory/bitmap";
import type { Channels, CodecChoice, Ledger, Pace } from "@godwit/multifd";
import type {
  Authority,
  Capabilities,
  Failure,
  Manifest,
  Offer,
  OwnershipEntry,
  OwnershipRecord,
  Parameters,
  PassReport,
  Route,
  SaveReport,
  SaveStage,
  Settlement,
  Waterfall,
  XbzrleCount,
  XbzrleItem,
} from "@godwit/protocol";
import type * as Devices from "./devices.ts";
import type { Times } from "./waterfall.ts";
import type { Xbzrle } from "./xbzrle.ts";

export type Phase =
  | { readonly _tag: "Claiming"; readonly settlement: Settlement | null }
  | { readonly _tag: "Claimed" }
  | { readonly _tag: "OpeningTracker" }
  | { readonly _tag: "Precopy"; readonly scanning: boolean; readonly verdict: "none" | "asked" | "iterate" }
  | { readonly _tag: "Stopping" }
  /** The vCPUs stand still, and the VFIO devices are being stopped. */
  | { readonly _tag: "StoppingDevices" }
  | { readonly _tag: "PreSwitchover" }
  | { readonly _tag: "SavingDeviceState" }
  | { readonly _tag: "FinalSync" }
  /** The last round is on its way; the devices' streams are being read to their end. */
  | { readonly _tag: "SavingDevices" }
  | { readonly _tag: "Switching"; readonly settlement: Settlement }
  | { readonly _tag: "AwaitingCommit" }
  | { readonly _tag: "TakingBack"; readonly settlement: Settlement }
  /** The VFIO devices go back to RUNNING before anything else. */
  | { readonly _tag: "ReleasingDevices"; readonly next: "resume" | "release" }
  | { readonly _tag: "Resuming" }
  | { readonly _tag: "Releasing"; readonly settlement: Settlement }
  /** Postcopy: the record says `destination`, and the destination fetches from here what it has not. */
  | { readonly _tag: "Serving" }
  /** Postcopy: the guest's process is gone, and with it what the destination had not fetched. The record is being told. */
  | { readonly _tag: "Losing"; readonly settlement: Settlement }
  /** The record says `destination`: this copy goes, and so do its devices. */
  | { readonly _tag: "Discarding"; readonly guestIsGone: boolean }
  | { readonly _tag: "Ended"; readonly outcome: "completed" | "failed" };

/** What decisions go by in a switchover, wall clock, ms; 0 until reached. What is measured of it is in `Times`. */
export interface Marks {
  /** vCPUs stand still, and the devices begin to stop; 0 without devices. */
  devices: number;
  save: number;
  running: number;
}

/** Counters of the whole attempt, and of the round that bandwidth is measured over. */
export interface Meter {
  wireBytes: number;
  normalPages: number;
  pages: number;
  /** Of this round. */
  roundNormalBytes: number;
  roundStartedAt: number;
  bandwidth: number;
  dirtyPagesRate: number;
  lastSyncAt: number;
  syncMs: number;
  /** Smoothed time from handing an item out to its acknowledgement, ms. */
  ackMs: number;
  /** Bytes of pages compared in this round, since when, and the rate of the last round that compared enough, bytes/s. */
  checkedBytes: number;
  checksStartedAt: number;
  verifyBandwidth: number;
}

export interface Source {
  readonly migration: string;
  /** What its subjects are made of. */
  readonly route: Route;
  readonly guest: string;
  readonly node: string;
  /** Of this process. */
  readonly incarnation: string;
  readonly capabilities: Capabilities;
  /** Pages that fit one message of this side's servers, and of the destination's once it is known. */
  itemPagesMax: number;
  readonly authority: Authority;
  attempt: number;
  parameters: Parameters;
  /** The coordinator's number for them; reports show it. */
  parametersRevision: number;
  phase: Phase;
  /** 0 until the claim is won. */
  epoch: number;
  /** Of the last write that was won. */
  revision: number;
  ops: number;
  wasRunning: boolean;
  offer: Offer | null;
  /** null: the guest has no VFIO devices, or was not described yet. */
  devices: Devices.Devices | null;
  readonly startedAt: number;
  destination: { readonly node: string; readonly incarnation: string; life: number } | null;
  blockPages: ReadonlyArray<number>;
  ledger: Ledger.Ledger;
  /** Null without capability `xbzrle`, and until the guest's memory is known. */
  xbzrle: Xbzrle | null;
  channels: Channels.Channels;
  pace: Pace.Pace;
  /** With `multifd-compression: auto`; null: it is fixed. */
  readonly codec: CodecChoice.CodecChoice | null;
  tracker: string | null;
  manifest: Manifest | null;
  /** The guest shall run at the destination before its memory is there. */
  postcopy: boolean;
  /** The pages that it runs without, by RAMBlock; null until they are known. */
  missing: ReadonlyArray<Bitmap.Bitmap> | null;
  deviceBytes: number;
  deviceDigest: number;
  verdictWanted: PassReport | null;
  /** Why the attempt is being ended; the first reason stays (R10). */
  failure: Failure | null;
  /** The record by which it was handed over in a postcopy, as it was read last. */
  handedOver: OwnershipEntry | null;
  /** Why the guest itself has ended at this side; null while it lives. There is nothing left to resume then. */
  guestEnded: Failure | null;
  readonly marks: Marks;
  readonly times: Times;
  readonly meter: Meter;
  /** Since when the ownership record does not answer, ms since 1970; null: it does, or is not asked. */
  recordUnknownSince: number | null;
  /** When the last event came, ms since 1970. */
  lastStepAt: number;
  workersLostAt: number | null;
  nextReportAt: number;
  nextCheckAt: number;
  nextTellAt: number;
}

/** What happens to a source: commands of the coordinator, answers of the guest and of the record, acknowledgements, time. */
export type SourceEvent =
  | { readonly _tag: "Described"; readonly offer: Offer; readonly running: boolean }
  | { readonly _tag: "RecordRead"; readonly op: string; readonly entry: OwnershipEntry | null | "Unknown" }
  | {
      readonly _tag: "RecordWritten";
      readonly op: string;
      readonly outcome: "Unknown" | "Lost" | { readonly revision: number };
    }
  | {
      readonly _tag: "Start";
      readonly epoch: number;
      readonly destination: string;
      readonly incarnation: string;
      /** Pages that fit one message of the destination's servers. */
      readonly itemPagesMax: number;
    }
  | { readonly _tag: "TrackerOpened"; readonly kind: string }
  | {
      readonly _tag: "Found";
      readonly round: number;
      readonly block: number;
      /** Pairs (first page, pages). */
      readonly runs: ReadonlyArray<number>;
    }
  | { readonly _tag: "Synced"; readonly round: number; readonly dirtyPages: number; readonly syncMs: number }
  | {
      readonly _tag: "Applied";
      readonly epoch: number;
      readonly round: number;
      readonly incarnation: string;
      readonly items: Uint32Array;
      readonly normalPages: number;
      readonly wireBytes: number;
      readonly xbzrle: XbzrleCount;
    }
  | {
      readonly _tag: "Refused";
      readonly epoch: number;
      readonly round: number;
      readonly items: Uint32Array;
      readonly reason: string;
    }
  | {
      readonly _tag: "Differs";
      readonly epoch: number;
      readonly round: number;
      readonly incarnation: string;
      readonly items: Uint32Array;
      readonly differing: Uint8Array;
    }
  /** The loader was restarted and goes on with this very attempt; what was on its way to its predecessor is lost. */
  | {
      readonly _tag: "DestinationResumed";
      readonly epoch: number;
      readonly incarnation: string;
      readonly life: number;
    }
  | { readonly _tag: "WorkerUp"; readonly worker: string }
  | { readonly _tag: "WorkerDown"; readonly worker: string }
  | {
      readonly _tag: "Verdict";
      readonly epoch: number;
      readonly round: number;
      readonly verdict: "iterate" | "switch-over" | "start-postcopy";
    }
  /** Whatever is under way: the guest shall run at the destination now. */
  | { readonly _tag: "StartPostcopy"; readonly epoch: number }
  | { readonly _tag: "Continue" }
  | { readonly _tag: "Tune"; readonly parameters: Parameters; readonly revision: number }
  | { readonly _tag: "Abort"; readonly failure: Failure }
  /** `since`: when the guest was told to stop, us of the host's monotonic clock; it ran until then. Absent: not measured. */
  | { readonly _tag: "Paused"; readonly since?: number }
  | { readonly _tag: "DevicesReported"; readonly report: SaveReport }
  | { readonly _tag: "DeviceStateSaved"; readonly bytes: number; readonly digest: number }
  | { readonly _tag: "Resumed" }
  | { readonly _tag: "Served" }
  | { readonly _tag: "Discarded" }
  /** The guest has shut down or crashed, or its process is gone. */
  | { readonly _tag: "GuestEnded"; readonly failure: Failure }
  | {
      readonly _tag: "DestinationRunning";
      readonly epoch: number;
      readonly incarnation: string;
      /** What it has measured. */
      readonly waterfall?: Waterfall;
    }
  | {
      readonly _tag: "DestinationFailed";
      readonly epoch: number;
      readonly incarnation: string;
      readonly failure: Failure;
    }
  | { readonly _tag: "LocalFailed"; readonly step: LocalStep; readonly failure: Failure }
  | { readonly _tag: "LinkRestored" }
  | { readonly _tag: "Tick" };

/** Steps that the shell carries out on this host. */
export type LocalStep =
  | "describe"
  | "open-tracker"
  | "sync"
  | "pause"
  | "save-device-state"
  | "resume"
  | "serve"
  | "discard";

export type SourceEffect =
  | { readonly _tag: "Local"; readonly step: LocalStep; readonly round: number }
  | { readonly _tag: "CloseTracker" }
  | { readonly _tag: "ReadRecord"; readonly op: string; readonly afterMs: number }
  | {
      readonly _tag: "WriteRecord";
      readonly record: OwnershipRecord;
      readonly revision: number;
      readonly afterMs: number;
    }
  | {
      readonly _tag: "Dispatch";
      readonly worker: string;
      readonly item: Ledger.Item;
      readonly channel: number;
      readonly channelEpoch: number;
      /** Of pages that are kept, or were; else null. */
      readonly xbzrle: XbzrleItem | null;
    }
  | { readonly _tag: "TellLoader" }
  | { readonly _tag: "TellAgent"; readonly stage: SaveStage }
  | { readonly _tag: "Report" }
  | { readonly _tag: "WakeAt"; readonly at: number };
