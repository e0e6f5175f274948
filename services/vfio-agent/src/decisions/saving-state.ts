/**
 * What the VFIO agent at the source is doing with a guest's devices.
 *
 *     Opening -> Precopy -> Quiescing -> Stopping -> Stopped (reads to the end) --> Discarding -> Discarded
 *        |          |           |           |           |
 *        +----------+-----------+-----------+-----------+--> Resuming -> Resumed
 *
 * Precopy: devices that have PRE_COPY are in it, the others RUNNING. Quiescing: all go to a P2P state first, so that none of them
 * still writes into another that has stopped. Each device does one thing at a time; `nextOp` says which.
 */
import type { Channels, Pace } from "@godwit/multifd";
import type { ArcInfo, Failure, Parameters, SavedStreams, SaveStage } from "@godwit/protocol";
import type { DeviceState, MigrationFeatures } from "@godwit/vfio";
import type { Slices } from "./slices.ts";

export type SavePhase =
  | "Opening"
  | "Precopy"
  | "Quiescing"
  | "Stopping"
  | "Stopped"
  | "Resuming"
  | "Resumed"
  | "Discarding"
  | "Discarded";

/** What a device is asked to do; one thing at a time. */
export type DeviceOp =
  | { readonly _tag: "Open" }
  | { readonly _tag: "Arc"; readonly to: DeviceState }
  | { readonly _tag: "Reset" }
  | { readonly _tag: "Info" }
  /** At most so many bytes, to `offset` of its data stream. */
  | { readonly _tag: "Read"; readonly offset: number; readonly bytesMax: number }
  | { readonly _tag: "ReadConfig" };

/** A device has gone an arc, or was reset. */
export interface Arrived {
  readonly _tag: "Arrived";
  readonly device: number;
  readonly state: DeviceState;
  readonly ms: number;
  /** When it set out, us of the host's monotonic clock; absent: it was not measured (a reset). */
  readonly at?: number;
}

export interface SavingDevice {
  readonly device: string;
  readonly provider: string;
  /** null until it was opened. */
  features: MigrationFeatures | null;
  state: DeviceState;
  busy: DeviceOp | null;
  busySince: number;
  initialBytes: number;
  dirtyBytes: number;
  stopCopyBytes: number;
  /** When PRE_COPY is asked for its bytes again. */
  nextInfoAt: number;
  /** It has told its initial bytes, so it also tells when there are none left. */
  tellsBytes: boolean;
  /** In PRE_COPY the last read found nothing; the next one waits for new bytes, or for its time. */
  drained: boolean;
  /** Where its initial data ends in the stream; null until all of it was read. */
  initialEnd: number | null;
  digest: number;
  /** STOP_COPY has given its last byte. */
  ended: boolean;
  config: { readonly bytes: number; readonly digest: number } | null;
  readonly arcs: ArcInfo[];
  /** Only a reset led it back to RUNNING. */
  stateLost: boolean;
  /** Of the arcs of a switchover, as measured before, ms. */
  switchoverMs: number;
  /** A device that cannot be brought where it shall be is tried again, up to a limit. */
  failures: number;
  nextTryAt: number;
}

export interface Saving {
  readonly migration: string;
  readonly epoch: number;
  readonly guest: string;
  /** Of this agent's process. */
  readonly incarnation: string;
  parameters: Parameters;
  parametersRevision: number;
  readonly startedAt: number;
  want: SaveStage;
  phase: SavePhase;
  phaseSince: number;
  readonly devices: SavingDevice[];
  readonly slices: Slices;
  readonly channels: Channels.Channels;
  readonly pace: Pace.Pace;
  /** Smoothed time until a stream's first slice was acknowledged, ms. */
  ackMs: number;
  /** Bytes acknowledged since there was something to send without a pause, or since the meter was begun anew, and the rate that it showed, bytes/s; 0: not measured yet. */
  readonly meter: { since: number; bytes: number; bandwidth: number };
  streams: ReadonlyArray<SavedStreams> | null;
  failure: Failure | null;
  nextReportAt: number;
}

export type SavingEvent =
  | {
      readonly _tag: "Wanted";
      readonly stage: SaveStage;
      readonly parameters: Parameters;
      readonly parametersRevision: number;
    }
  | {
      readonly _tag: "Opened";
      readonly device: number;
      readonly features: MigrationFeatures;
      readonly state: DeviceState;
      readonly switchoverMs: number;
    }
  | Arrived
  | {
      readonly _tag: "Info";
      readonly device: number;
      /** null: the provider cannot tell. */
      readonly initialBytes: number | null;
      readonly dirtyBytes: number | null;
      readonly stopCopyBytes: number | null;
    }
  /** `bytes` 0: nothing for now, or in STOP_COPY the end. `digest`: of the stream up to here. */
  | { readonly _tag: "Read"; readonly device: number; readonly bytes: number; readonly digest: number }
  | { readonly _tag: "ConfigRead"; readonly device: number; readonly bytes: number; readonly digest: number }
  /** `state`: where the device is now; null: it does not say. */
  | {
      readonly _tag: "OpFailed";
      readonly device: number;
      readonly state: DeviceState | null;
      readonly failure: Failure;
    }
  | { readonly _tag: "Applied"; readonly items: Uint32Array }
  | { readonly _tag: "Refused"; readonly items: Uint32Array; readonly reason: string }
  | { readonly _tag: "WorkerUp"; readonly worker: string }
  | { readonly _tag: "WorkerDown"; readonly worker: string }
  /** Handed over or ended: nobody is left to say what shall become of its devices. */
  | { readonly _tag: "GuestGone" }
  | { readonly _tag: "LinkRestored" }
  | { readonly _tag: "Tick" };

export type SavingEffect =
  | { readonly _tag: "Op"; readonly device: number; readonly op: DeviceOp }
  | {
      readonly _tag: "Dispatch";
      readonly worker: string;
      readonly channel: number;
      readonly channelEpoch: number;
      readonly item: number;
      readonly stream: number;
      readonly offset: number;
      readonly bytes: number;
    }
  | { readonly _tag: "Report" }
  | { readonly _tag: "WakeAt"; readonly at: number };

export type Emit = (effect: SavingEffect) => void;

/** The first reason stays (R10). What to do about it is the RAM sender's to say. */
export const fail = (saving: Saving, failure: Failure): void => {
  saving.failure ??= failure;
};
