import type { DirtyTracker, RamBlock, TrackerKind } from "@godwit/memory";
import type { GodwitError } from "@godwit/protocol";
import type { DeviceSpec } from "@godwit/vfio";
import type * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { MissingMemory } from "./missing-memory.ts";

/** What a guest is doing, as far as a migration cares. `incoming`: a destination that waits for its memory and device state. */
export type RunState = "running" | "paused" | "incoming" | "shutdown" | "failed";

/** What both sides must agree on before a byte moves (R9). */
export interface GuestDescription {
  readonly name: string;
  readonly driver: "builtin" | "qemu";
  /** The machine type ("pc-i440fx-10.0", "builtin-1"); must be equal on both sides. */
  readonly machine: string;
  /** The hypervisor's version, shown to the operator; a difference is no refusal. */
  readonly version: string;
  readonly blocks: ReadonlyArray<RamBlock>;
  readonly runState: RunState;
  /** Its process; for a QEMU whose monitor socket somebody else opened (libvirt), that one's. */
  readonly pid: number;
  /**
   * It runs while pages of its memory are still on their way. Nobody may read its RAMBlocks then: that would fill the gaps with zeros.
   * Absent: all of its memory is there.
   */
  readonly pagesMissing?: boolean;
}

/** How a guest's own life ended. */
export interface GuestEnding {
  /** `shutdown`: in good order, by itself or by whoever it belongs to. `crashed`: its process is gone without a word, or it cannot go on. */
  readonly how: "shutdown" | "crashed";
  /** What happened, as a clause: "the guest shut itself down". */
  readonly reason: string;
}

/**
 * One guest of this host, reached through its driver. All operations are idempotent: an actor that was restarted may
 * call them again. Every operation fails with a coded GodwitError; none leaves the guest running that was not.
 */
export interface Guest {
  readonly describe: Effect.Effect<GuestDescription, GodwitError>;
  /** Starts dirty tracking; the scope's end switches it off and leaves nothing behind. */
  readonly track: (kind: TrackerKind | "auto") => Effect.Effect<DirtyTracker, GodwitError, Scope.Scope>;
  /** Returns once no vCPU runs any more. */
  readonly pause: Effect.Effect<void, GodwitError>;
  /** Lets a paused guest go on (source), or a loaded one start (destination). */
  readonly resume: Effect.Effect<void, GodwitError>;
  /**
   * Source, while the guest still runs: what can be had before it is stopped for a save. Optional. The scope's end undoes it; until then
   * nobody else may reach the guest, so it is for a moment.
   */
  readonly prepareToSave: Effect.Effect<void, GodwitError, Scope.Scope>;
  /** Writes the guest's own device state into a new file at `path` and returns its length, bytes. The guest must be paused. */
  readonly saveDeviceState: (path: string) => Effect.Effect<number, GodwitError>;
  /**
   * Destination of a migration with capability postcopy-ram, before its first page comes; what its memory held is lost. Fails with
   * `not-supported` where a postcopy cannot be. Trap: a QEMU that was prepared is of no use to another attempt, and ends with this one.
   */
  readonly prepareForPostcopy: Effect.Effect<void, GodwitError, Scope.Scope>;
  /** Loads device state from `path` once RAM is in place; the guest stays paused. */
  readonly loadDeviceState: (path: string) => Effect.Effect<void, GodwitError>;
  /**
   * Postcopy, before the guest may run: its threads shall wait for pages that are not in `blocks`, which are its own. Harmless when said
   * again, by a successor too. Fails with `not-supported` where that cannot be.
   */
  readonly expectPages: (blocks: ReadonlyArray<RamBlock>) => Effect.Effect<MissingMemory, GodwitError, Scope.Scope>;
  /** Source, after the destination runs: ends this copy for good. Destination, after a failed attempt: ready for another try, or gone. */
  readonly discard: Effect.Effect<void, GodwitError>;
  /**
   * Watches the guest's own life: returns once it has shut down, has crashed or is gone, at once if it was so before. A guest that is
   * reset lives on. Never fails: as long as nothing can be learnt of its end, it is taken to live.
   */
  readonly ending: Effect.Effect<GuestEnding>;
}

export type Moving = "arriving" | "leaving" | "saving";

/**
 * How a node finds a guest: one JSON file for each in `<runtime directory>/guests/`. `moving`: a migration has it in hand, and it stands
 * still for no other reason. `arriving` was not handed over yet, so a later attempt may end it; `leaving` was stopped for its
 * switchover, so it may be ended once the record says that it runs elsewhere; `saving` was stopped for a checkpoint, and goes on
 * after it. `epoch`: of the attempt by which it arrives.
 */
export type GuestSpec =
  | {
      readonly driver: "builtin";
      readonly name: string;
      readonly socket: string;
      readonly pid: number;
      readonly moving?: Moving;
      readonly epoch?: number;
      /** Its VFIO devices; absent: none. */
      readonly devices?: ReadonlyArray<DeviceSpec>;
    }
  | {
      readonly driver: "qemu";
      readonly name: string;
      readonly qmp: string;
      /** A command line that starts this guest as a destination (`-incoming defer`), when godwit is to start it. */
      readonly launch?: ReadonlyArray<string>;
      readonly moving?: Moving;
      readonly epoch?: number;
      /** Its VFIO devices; absent: none. */
      readonly devices?: ReadonlyArray<DeviceSpec>;
    };

/** Opens guests of one kind. */
export interface GuestDriver<S extends GuestSpec = GuestSpec> {
  readonly kind: S["driver"];
  readonly open: (spec: S) => Effect.Effect<Guest, GodwitError, Scope.Scope>;
}
