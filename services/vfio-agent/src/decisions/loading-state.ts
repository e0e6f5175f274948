/**
 * What the VFIO agent at the destination is doing with a guest's devices.
 *
 *     Opening -> Ready (RESUMING: takes what comes) -> Loaded (STOP: the device has found its stream whole) -> Starting -> Running
 *        |          |                                      |
 *        +----------+--------------------------------------+--> Discarding -> Discarded (STOP)
 *
 * The devices run only when the loader says so, which is after the ownership record was won (O3).
 */
import type {
  ArcInfo,
  Failure,
  LaneCounts,
  LoadStage,
  OfferedDevice,
  Parameters,
  RefusedPackets,
  SavedStreams,
} from "@godwit/protocol";
import type { DeviceState, MigrationFeatures } from "@godwit/vfio";
import type { Piece, Reassembly } from "./reassembly.ts";
import type { Arrived } from "./saving-state.ts";

export type LoadPhase = "Opening" | "Ready" | "Loaded" | "Starting" | "Running" | "Discarding" | "Discarded";

export type LoadOp =
  | { readonly _tag: "Open" }
  | { readonly _tag: "Arc"; readonly to: DeviceState }
  | { readonly _tag: "Reset" }
  /** These bytes follow those that were written before. */
  | { readonly _tag: "Write"; readonly pieces: ReadonlyArray<Piece> }
  | { readonly _tag: "WriteConfig"; readonly pieces: ReadonlyArray<Piece> };

export interface LoadingDevice {
  readonly offered: OfferedDevice;
  features: MigrationFeatures | null;
  state: DeviceState;
  busy: LoadOp | null;
  busySince: number;
  readonly data: Reassembly;
  /** Not bound by the queue's parameters: a configuration space is loaded only when all of it is here. */
  readonly config: Reassembly;
  /** Of the data stream, as far as it was written. */
  digest: number;
  configLoaded: boolean;
  /** Where the source's initial data ends; null: not known yet. */
  initialEnd: number | null;
  readonly arcs: ArcInfo[];
  /** Only a reset made it start. */
  stateLost: boolean;
  switchoverMs: number;
  failures: number;
  nextTryAt: number;
}

export interface Loading {
  readonly migration: string;
  readonly epoch: number;
  readonly guest: string;
  readonly incarnation: string;
  readonly parameters: Parameters;
  /** `downtime-limit`, which may change on the way. */
  downtimeLimitMs: number;
  /** `x-migration-load-config-after-iter`, its `auto` decided. */
  readonly configAfterMemory: boolean;
  want: LoadStage;
  phase: LoadPhase;
  readonly devices: LoadingDevice[];
  /** What must be there; null before the manifest is known. */
  expected: ReadonlyArray<SavedStreams> | null;
  memoryLoaded: boolean;
  /** Packets that could not be opened, as the shell counts them; null: they are not sealed. */
  refusedPackets: RefusedPackets | null;
  /** How packets have come, as the shell counts it; null: by NATS alone (`lane`). */
  readonly lanes: LaneCounts | null;
  failure: Failure | null;
  nextReportAt: number;
}

export type LoadingEvent =
  | {
      readonly _tag: "Wanted";
      readonly stage: LoadStage;
      readonly streams: ReadonlyArray<SavedStreams>;
      readonly memoryLoaded: boolean;
    }
  | {
      readonly _tag: "Opened";
      readonly device: number;
      readonly features: MigrationFeatures;
      readonly state: DeviceState;
      readonly switchoverMs: number;
    }
  | Arrived
  /** `digest`: of the whole stream up to here. */
  | { readonly _tag: "Written"; readonly device: number; readonly digest: number }
  | { readonly _tag: "ConfigWritten"; readonly device: number; readonly digest: number }
  | {
      readonly _tag: "OpFailed";
      readonly device: number;
      readonly state: DeviceState | null;
      readonly failure: Failure;
    }
  /** The payload belongs to the queue from here on, and to the operation that takes it out. */
  | { readonly _tag: "Slice"; readonly stream: number; readonly piece: Piece }
  | { readonly _tag: "LimitTold"; readonly downtimeLimitMs: number }
  | { readonly _tag: "InitialEnds"; readonly device: string; readonly at: number }
  | { readonly _tag: "Tick" };

export type LoadingEffect =
  | { readonly _tag: "Op"; readonly device: number; readonly op: LoadOp }
  | { readonly _tag: "Acknowledge"; readonly items: ReadonlyArray<number> }
  | { readonly _tag: "Report" }
  | { readonly _tag: "WakeAt"; readonly at: number };
