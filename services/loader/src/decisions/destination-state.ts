/**
 * What the destination side of one migration is doing.
 *
 *     Preparing -> PreparingDevices -> Ready (applies packets) -> Loading -> Committing -> StartingDevices -> Starting -> Closing -> Running
 *         |           |                         |            |                        |
 *         +-----------+-------------------------+------------+--> Discarding -> Failed +-> Lost
 *
 * Postcopy, when the record's manifest says so: the bitmaps of the pages that the guest shall run without are fetched while the device
 * state comes; Ready -> Expecting (they are thrown away, and the guest waits for them from now on) -> Loading ... Starting -> Paging (it
 * runs, and they come) -> Closing. The record stays open until all are there: only then may the source throw its copy away.
 *
 * The guest runs here only after the settled write of `destination` was won (O3). After that there is no way to Failed: one whose
 * process is gone before it ran is Lost, as it would be with its host.
 *
 * A loader that is restarted goes on with a session whose guest and fence survived: from Preparing to Ready again, as the same
 * incarnation (its file is locked, so the predecessor is gone, and what it acknowledged is in the guest's memory).
 */
import {
  type Authority,
  type Failure,
  type LaneCounts,
  type Laps,
  type LoadReport,
  type LoadStage,
  type Manifest,
  makeLaps,
  type Offer,
  type OwnershipEntry,
  type OwnershipRecord,
  PAGE_BYTES,
  PARAMETER_DEFAULTS,
  type Parameters,
  type PostcopyInfo,
  type RefusedPackets,
  type Route,
  type Settlement,
} from "@godwit/protocol";
import * as Devices from "./devices.ts";
import * as Fence from "./fence.ts";

export type Phase =
  | { readonly _tag: "Preparing" }
  /** The guest is prepared; its VFIO devices are being opened. */
  | { readonly _tag: "PreparingDevices"; readonly words: Uint32Array }
  | { readonly _tag: "Ready" }
  /** Given up, with a guest that a former life had loaded and perhaps committed: the record tells which. */
  | { readonly _tag: "Yielding" }
  /** Postcopy: the guest is being told to wait for pages that are not there. */
  | { readonly _tag: "Expecting" }
  | { readonly _tag: "Loading" }
  | { readonly _tag: "Committing"; readonly settlement: Settlement }
  /** The record says that the guest is ours: its devices run first. */
  | { readonly _tag: "StartingDevices" }
  | { readonly _tag: "Starting" }
  /** Postcopy: the guest runs, and pages of it are still at the source. */
  | { readonly _tag: "Paging" }
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
  /** What its subjects are made of. */
  readonly route: Route;
  readonly startedAt: number;
  /** Of the session, not of the process. */
  readonly incarnation: string;
  /** How often a restarted loader has gone on with this session. */
  readonly life: number;
  readonly epoch: number;
  readonly offer: Offer;
  parameters: Parameters;
  /** The coordinator's number for them; reports show it. A session that goes on has them from before, as number 0. */
  parametersRevision: number;
  readonly capabilities: Readonly<Record<string, boolean>>;
  readonly authority: Authority;
  phase: Phase;
  /** A former life may have written the commit, and the write may still land: nothing may be thrown away before the record is settled. */
  mayBeCommitted: boolean;
  /** A former life has told the incoming guest to wait for missing pages: its memory is of no use to another attempt. */
  isListening: boolean;
  /** Lets nothing in until the guest is prepared. */
  fence: Fence.Fence;
  /** Packets that could not be opened, as the shell counts them; null: they are not sealed. */
  refusedPackets: RefusedPackets | null;
  /** How packets have come, as the shell counts it; null: by NATS alone (`lane`). */
  readonly lanes: LaneCounts | null;
  /** null: the guest has no VFIO devices. */
  devices: Devices.Devices | null;
  /** What the record promises and at which revision; null until it says `switching`. */
  promise: { readonly manifest: Manifest; readonly revision: number } | null;
  /** Null: no postcopy, as far as is known. */
  postcopy: DestinationPostcopy | null;
  /** The guest ran at the source, and shall run here; what the record says, once it was read. */
  wasRunning: boolean;
  revision: number;
  ops: number;
  failure: Failure | null;
  /** Why the incoming guest itself has ended; null while it lives. */
  guestEnded: Failure | null;
  heardAt: number;
  /** When the last event came, ms since 1970. */
  lastStepAt: number;
  nextReportAt: number;
  nextStartAt: number;
  /** When a resumed session looks at the record again: who would have told it may be gone. */
  nextLookAt: number;
  concluded: boolean;
  /** What is measured of the switchover here. */
  readonly laps: Laps;
}

export interface DestinationPostcopy {
  /** The bitmaps of missing pages are here, and are those that the record promises. */
  isKnown: boolean;
  nextAskAt: number;
  /** How far the fetching is, once it has begun. */
  info: PostcopyInfo | null;
  isAllThere: boolean;
  /** The guest is being told that the rest will never come. */
  isGivenUp: boolean;
  /** The number of the operator's last word. */
  word: number;
}

export type DestinationEvent =
  /** `words`: the fence's, empty or as a former life left them; `loaded`: that life had loaded the device state already. */
  | { readonly _tag: "Prepared"; readonly words: Uint32Array; readonly loaded: boolean; readonly listening?: boolean }
  | { readonly _tag: "DevicesReported"; readonly report: LoadReport }
  | { readonly _tag: "SwitchingTold"; readonly epoch: number }
  | { readonly _tag: "RecordRead"; readonly op: string; readonly entry: OwnershipEntry | null | "Unknown" }
  | {
      readonly _tag: "RecordWritten";
      readonly op: string;
      readonly outcome: "Unknown" | "Lost" | { readonly revision: number };
    }
  /** A batch of packets was applied; the fence has counted them. */
  | { readonly _tag: "PacketsApplied" }
  /** The bitmaps of the pages that a postcopy begins without. */
  | { readonly _tag: "MissingKnown"; readonly digest: number }
  | { readonly _tag: "PagesExpected" }
  | { readonly _tag: "Fetched"; readonly info: PostcopyInfo; readonly isAllThere: boolean }
  | { readonly _tag: "PauseFetching"; readonly word: number }
  | { readonly _tag: "RecoverFetching"; readonly word: number }
  | { readonly _tag: "Tune"; readonly parameters: Parameters; readonly revision: number }
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

export type LocalStep = "prepare" | "expect-pages" | "load-device-state" | "resume" | "give-up-pages" | "discard";

export type DestinationEffect =
  | { readonly _tag: "Local"; readonly step: LocalStep }
  | { readonly _tag: "ReadRecord"; readonly op: string; readonly afterMs: number }
  | {
      readonly _tag: "WriteRecord";
      readonly record: OwnershipRecord;
      readonly revision: number;
      readonly afterMs: number;
    }
  /** Ask the source for the bitmaps of missing pages. */
  | { readonly _tag: "AskMissing" }
  /** Bring the missing pages, until all are there; harmless when said again. */
  | { readonly _tag: "Fetch" }
  | { readonly _tag: "SayToFetching"; readonly word: "Pause" | "Recover" }
  /** Parameters of the fetching have changed. */
  | { readonly _tag: "TuneFetching" }
  | { readonly _tag: "TellAgent"; readonly stage: LoadStage }
  | { readonly _tag: "Report" }
  | { readonly _tag: "WakeAt"; readonly at: number };

/** The last word is repeated until the coordinator has concluded, ms. */
export const REPORT_MS = 200;

export const makeDestination = (options: {
  readonly migration: string;
  readonly guest: string;
  readonly node: string;
  readonly source: string;
  readonly incarnation: string;
  readonly epoch: number;
  readonly authority: Authority;
  readonly offer: Offer;
  /** Default: all at their defaults. */
  readonly parameters?: Parameters;
  readonly parametersRevision?: number;
  /** Default: none. */
  readonly capabilities?: Readonly<Record<string, boolean>>;
  /** Above 0 for a session that a restarted loader goes on with. */
  readonly life?: number;
  readonly now: number;
}): Destination => ({
  migration: options.migration,
  guest: options.guest,
  node: options.node,
  source: options.source,
  route: { migration: options.migration, source: options.source, destination: options.node },
  startedAt: options.now,
  incarnation: options.incarnation,
  life: options.life ?? 0,
  epoch: options.epoch,
  offer: options.offer,
  parameters: options.parameters ?? PARAMETER_DEFAULTS,
  parametersRevision: options.parametersRevision ?? 0,
  capabilities: options.capabilities ?? {},
  authority: options.authority,
  phase: { _tag: "Preparing" },
  mayBeCommitted: false,
  isListening: false,
  fence: Fence.make(options.migration, options.epoch, 0, Fence.CLOSED),
  refusedPackets: null,
  lanes: (options.parameters ?? PARAMETER_DEFAULTS).lane === "nats" ? null : new Map(),
  devices: (options.offer.devices ?? []).length === 0 ? null : Devices.make(),
  promise: null,
  postcopy: null,
  wasRunning: true,
  revision: 0,
  ops: 0,
  failure: null,
  guestEnded: null,
  heardAt: options.now,
  lastStepAt: options.now,
  nextReportAt: options.now + REPORT_MS,
  nextStartAt: 0,
  nextLookAt: 0,
  concluded: false,
  laps: makeLaps(),
});

/** Pages of all RAMBlocks: what the fence must have bits for. */
export const pagesOf = (offer: Offer): number =>
  offer.blocks.reduce((sum, block) => sum + block["length-bytes"] / PAGE_BYTES, 0);
