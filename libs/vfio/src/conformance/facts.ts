/** What a factory of devices tells the contract suite: how to make them, and what of the contract its devices do not keep. */
import type * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { DeviceError, VfioDevice } from "../device.ts";
import type { DeviceState, MigrationFeatures } from "../state-machine.ts";

/** A device that can be opened, closed with the scope, and opened again. */
export type Openable = Effect.Effect<VfioDevice, DeviceError, Scope.Scope>;

/** Two fresh devices of one kind: RUNNING, with no stream, nobody has them open. They are gone, or fresh again, with the scope. */
export interface DevicePair {
  /** Has content worth moving. It does not change by itself while a case looks at it. */
  readonly source: Openable;
  readonly destination: Openable;
  /** Changes the source's content, so that PRE_COPY has something again; left out if nobody can. */
  readonly touch?: (source: VfioDevice) => Effect.Effect<void, unknown>;
  /**
   * Whether the destination, RUNNING after it was loaded, has the source's content. Left out: it has if it gives the same stream.
   */
  readonly isEqual?: (source: VfioDevice, destination: VfioDevice) => Effect.Effect<boolean, unknown>;
}

/**
 * The facts of one kind of device. The first ones are what it can do. Those that are left out are what the uAPI demands; a device
 * that does otherwise says so here, and why beside it.
 */
export interface DeviceFacts {
  readonly features: MigrationFeatures;
  /** Has a PCI configuration space that can be read and written. */
  readonly config: boolean;
  /** `dmaLogging` is there. */
  readonly dirtyLogging: boolean;
  /** `precopyInfo` is not null in PRE_COPY. */
  readonly precopyInfo: boolean;
  /** `stopCopyBytes` is not null. */
  readonly stopCopyBytes: boolean;
  /** A destination takes a source's stream and runs with it; libvfio-user's gpio sample never does. */
  readonly loads: boolean;
  /** false: an incomplete stream is not noticed (or ends the process, as in libvfio-user's `server` sample). */
  readonly refusesIncomplete?: boolean;
  /** false: a byte that was changed on the way is not always noticed; mtty checks its header only. */
  readonly noticesDamage?: boolean;
  /** false: RESET leaves the migration state as it is (libvfio-user), so there is no way out of a RESUMING that fails. */
  readonly resets?: boolean;
  /** false: the last one who closes the device resets it. */
  readonly keepsStateWhenClosed?: boolean;
  /** The one size that it reads with, bytes: for a device that takes no other. */
  readonly readBytes?: number;
  /** The most that `write` may be given at once, bytes; a provider that splits by itself leaves it out. */
  readonly writeBytesMax?: number;
  /** SETs that must not be tried, and why: they would end the device. */
  readonly avoids?: ReadonlyArray<{ readonly from: DeviceState; readonly to: DeviceState; readonly why: string }>;
}

/** One thing that every device does. It needs no test runner, so that it can run on a machine that has none. */
export interface ConformanceCase {
  readonly name: string;
  /** Fails, or dies of an AssertionError. */
  readonly run: (pair: DevicePair) => Effect.Effect<void, unknown, Scope.Scope>;
}
