/**
 * A VFIO device as the migration sees it: one interface for all providers. The stream is opaque; its byte order is kept, its
 * segments may be cut and joined anywhere (uAPI, "the user is not required to preserve segmentation").
 */
import * as Data from "effect/Data";
import type * as Effect from "effect/Effect";
import type { DeviceState, MigrationFeatures } from "./state-machine.ts";

export type ProviderKind = "simulated" | "vfio-user" | "kernel";

/** What a device answered, or did not. */
export class DeviceError extends Data.TaggedError("DeviceError")<{
  readonly device: string;
  /** What was asked: `set RUNNING -> STOP_COPY`, `read`, ... */
  readonly operation: string;
  /** Name of the errno that the device gave, `ETIMEDOUT` when it gave no answer, `EPIPE` when it is gone. */
  readonly errno: string;
  readonly reason: string;
}> {
  override get message(): string {
    return `device ${this.device}: ${this.operation}: ${this.reason} (${this.errno})`;
  }
}

/** VFIO_MIG_GET_PRECOPY_INFO, bytes. */
export interface PrecopyInfo {
  readonly initialBytes: number;
  readonly dirtyBytes: number;
}

/** A range of I/O virtual addresses, bytes. */
export interface IovaRange {
  readonly iova: number;
  readonly length: number;
}

/** Device dirty logging (VFIO_DEVICE_FEATURE_DMA_LOGGING_*): what the device wrote into guest memory. */
export interface DmaLogging {
  readonly start: (pageBytes: number, ranges: ReadonlyArray<IovaRange>) => Effect.Effect<void, DeviceError>;
  /** One bit for each page of the range, written since the last report; reporting clears. */
  readonly report: (range: IovaRange, pageBytes: number) => Effect.Effect<Uint8Array, DeviceError>;
  readonly stop: Effect.Effect<void, DeviceError>;
}

/** An open device. Its operations must not be called at the same time, except `state`. Closing is the scope's. */
export interface VfioDevice {
  readonly name: string;
  readonly provider: ProviderKind;
  readonly features: MigrationFeatures;
  /** Asked of the device, not remembered: a failed SET may have left it anywhere. */
  readonly state: Effect.Effect<DeviceState, DeviceError>;
  /** One SET; the device walks the arcs. After a failure only `state` tells where it is. */
  readonly setState: (to: DeviceState) => Effect.Effect<void, DeviceError>;
  /** To RUNNING, from every state; the stream is gone. */
  readonly reset: Effect.Effect<void, DeviceError>;
  /**
   * Reads the next bytes of the migration stream; how many. 0: in STOP_COPY the end of the stream, in PRE_COPY nothing for now. Never
   * more than `into` holds; short reads are usual.
   */
  readonly read: (into: Uint8Array) => Effect.Effect<number, DeviceError>;
  /**
   * Writes all of these bytes, in RESUMING. A failure ends the attempt, whatever a later SET says. The bytes must stay as they are until
   * it has succeeded, and after a failure: they may still be on their way then.
   */
  readonly write: (bytes: Uint8Array) => Effect.Effect<void, DeviceError>;
  /** null: the provider cannot tell. Only in PRE_COPY and PRE_COPY_P2P. */
  readonly precopyInfo: Effect.Effect<PrecopyInfo | null, DeviceError>;
  /** VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: about how many bytes STOP_COPY would give; null: the provider cannot tell. */
  readonly stopCopyBytes: Effect.Effect<number | null, DeviceError>;
  /** The PCI configuration space as it shall be at the destination; empty when there is none. */
  readonly readConfig: Effect.Effect<Uint8Array, DeviceError>;
  readonly writeConfig: (config: Uint8Array) => Effect.Effect<void, DeviceError>;
  /** null: the device does not log. */
  readonly dmaLogging: DmaLogging | null;
}
