/**
 * The device migration state machine of the Linux VFIO uAPI, version 2 (include/uapi/linux/vfio.h, `enum vfio_device_mig_state`,
 * and `vfio_mig_get_next_state` of drivers/vfio/vfio_main.c), as data.
 *
 * Arcs are what a device itself does. A SET may name any state: the kernel walks the arcs in between, and so does `pathOf`.
 *
 *     RUNNING -- RUNNING_P2P -- STOP -- STOP_COPY        PRE_COPY and PRE_COPY_P2P, and the P2P states, are optional:
 *        |           |            \                      a device's features say which it has.
 *     PRE_COPY -- PRE_COPY_P2P     RESUMING              ERROR is left by a reset only.
 *                    \-> STOP_COPY
 */

/** By the uAPI's names and numbers. */
export const DEVICE_STATES = [
  "ERROR",
  "STOP",
  "RUNNING",
  "STOP_COPY",
  "RESUMING",
  "RUNNING_P2P",
  "PRE_COPY",
  "PRE_COPY_P2P",
] as const;
export type DeviceState = (typeof DEVICE_STATES)[number];

/** VFIO_DEVICE_FEATURE_MIGRATION: discovered, never assumed. */
export interface MigrationFeatures {
  /** VFIO_MIGRATION_STOP_COPY; without it a device cannot be migrated. */
  readonly stopCopy: boolean;
  /** VFIO_MIGRATION_P2P: RUNNING_P2P, and with `preCopy` PRE_COPY_P2P. */
  readonly p2p: boolean;
  /** VFIO_MIGRATION_PRE_COPY. */
  readonly preCopy: boolean;
}

const P2P_STATES: ReadonlyArray<DeviceState> = ["RUNNING_P2P", "PRE_COPY_P2P"];
const PRE_COPY_STATES: ReadonlyArray<DeviceState> = ["PRE_COPY", "PRE_COPY_P2P"];
const SAVING_STATES: ReadonlyArray<DeviceState> = ["PRE_COPY", "PRE_COPY_P2P", "STOP_COPY"];
const RUNNING_STATES: ReadonlyArray<DeviceState> = ["RUNNING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"];

/** Whether the device works in this state, and so changes its own state. */
export const isRunning = (state: DeviceState): boolean => RUNNING_STATES.includes(state);

/** Whether there is a stream to read in this state. */
export const isSaving = (state: DeviceState): boolean => SAVING_STATES.includes(state);

/** Whether a device with these features has this state. ERROR is had by all that can be migrated. */
export const hasState = (state: DeviceState, features: MigrationFeatures): boolean =>
  features.stopCopy &&
  (features.p2p || !P2P_STATES.includes(state)) &&
  (features.preCopy || !PRE_COPY_STATES.includes(state));

/** The states that a device with these features has, by the uAPI's order. */
export const statesOf = (features: MigrationFeatures): ReadonlyArray<DeviceState> =>
  DEVICE_STATES.filter((state) => hasState(state, features));

/**
 * `vfio_from_fsm_table`: the next state on the way from one (outside) to another (inside), for a device with all features; states
 * that a device does not have are stepped over. No entry: there is no way.
 */
const NEXT: Readonly<Partial<Record<DeviceState, Readonly<Partial<Record<DeviceState, DeviceState>>>>>> = {
  STOP: {
    STOP: "STOP",
    RUNNING: "RUNNING_P2P",
    STOP_COPY: "STOP_COPY",
    RESUMING: "RESUMING",
    RUNNING_P2P: "RUNNING_P2P",
    PRE_COPY: "RUNNING_P2P",
    PRE_COPY_P2P: "RUNNING_P2P",
  },
  RUNNING: {
    STOP: "RUNNING_P2P",
    RUNNING: "RUNNING",
    STOP_COPY: "RUNNING_P2P",
    RESUMING: "RUNNING_P2P",
    RUNNING_P2P: "RUNNING_P2P",
    PRE_COPY: "PRE_COPY",
    PRE_COPY_P2P: "RUNNING_P2P",
  },
  STOP_COPY: { STOP: "STOP", RUNNING: "STOP", STOP_COPY: "STOP_COPY", RESUMING: "STOP", RUNNING_P2P: "STOP" },
  RESUMING: {
    STOP: "STOP",
    RUNNING: "STOP",
    STOP_COPY: "STOP",
    RESUMING: "RESUMING",
    RUNNING_P2P: "STOP",
    PRE_COPY: "STOP",
    PRE_COPY_P2P: "STOP",
  },
  RUNNING_P2P: {
    STOP: "STOP",
    RUNNING: "RUNNING",
    STOP_COPY: "STOP",
    RESUMING: "STOP",
    RUNNING_P2P: "RUNNING_P2P",
    PRE_COPY: "RUNNING",
    PRE_COPY_P2P: "PRE_COPY_P2P",
  },
  PRE_COPY: {
    STOP: "RUNNING",
    RUNNING: "RUNNING",
    STOP_COPY: "PRE_COPY_P2P",
    RESUMING: "RUNNING",
    RUNNING_P2P: "RUNNING",
    PRE_COPY: "PRE_COPY",
    PRE_COPY_P2P: "PRE_COPY_P2P",
  },
  PRE_COPY_P2P: {
    STOP: "RUNNING_P2P",
    RUNNING: "RUNNING_P2P",
    STOP_COPY: "STOP_COPY",
    RESUMING: "RUNNING_P2P",
    RUNNING_P2P: "RUNNING_P2P",
    PRE_COPY: "PRE_COPY",
    PRE_COPY_P2P: "PRE_COPY_P2P",
  },
};

/**
 * What an arc does to the migration stream (`data_fd`).
 *
 * - `opens-saving`, `opens-resuming`: a new stream; one that was open is gone
 * - `keeps`: an open stream goes on
 * - `closes`: it is gone; reading or writing it is refused from then on
 * - `none`: there is none before or after
 */
export type StreamEffect = "opens-saving" | "opens-resuming" | "keeps" | "closes" | "none";

/** What a device itself does, in one step. */
export interface Arc {
  readonly from: DeviceState;
  readonly to: DeviceState;
  readonly stream: StreamEffect;
}

/** `FROM->TO`: how settings and faults name an arc. */
export const arcName = ({ from, to }: Pick<Arc, "from" | "to">): string => `${from}->${to}`;

/** The way of a SET, or why there is none. Refused: the device stays as it is. */
export type Path =
  | { readonly _tag: "Path"; readonly arcs: ReadonlyArray<Arc>; readonly stream: StreamEffect }
  | { readonly _tag: "Refused"; readonly errno: "EINVAL" | "ENOTTY"; readonly reason: string };

/**
 * The arcs that a SET walks on a device with these features (`vfio_mig_get_next_state` of Linux 6.12); none to where it is. ENOTTY:
 * the device cannot be migrated. Trap: a device that refuses in the middle of the way stays in the middle.
 */
export const pathOf = (from: DeviceState, to: DeviceState, features: MigrationFeatures): Path => {
  if (!features.stopCopy) return { _tag: "Refused", errno: "ENOTTY", reason: "the device cannot be migrated" };
  const absent = [from, to].find((state) => !hasState(state, features));
  if (absent !== undefined) return refused(`the device has no state ${absent}`);
  if (from === "ERROR") return refused("the device is in ERROR, which only a reset leaves");
  const arcs: Array<Arc> = [];
  for (let state: DeviceState = from; state !== to; ) {
    const next = nextState(state, to, features);
    if (next === undefined) return refused(`no way leads from ${from} to ${to}`);
    arcs.push({ from: state, to: next, stream: streamEffectOf(state, next) });
    state = next;
  }
  return { _tag: "Path", arcs, stream: streamEffectOfAll(from, to, arcs) };
};

const refused = (reason: string): Path => ({ _tag: "Refused", errno: "EINVAL", reason });

const nextState = (from: DeviceState, to: DeviceState, features: MigrationFeatures): DeviceState | undefined => {
  let next = NEXT[from]?.[to];
  while (next !== undefined && !hasState(next, features)) next = NEXT[next]?.[to];
  return next;
};

const streamEffectOf = (from: DeviceState, to: DeviceState): StreamEffect => {
  if (to === "RESUMING") return from === to ? "keeps" : "opens-resuming";
  if (isSaving(to)) return isSaving(from) ? "keeps" : "opens-saving";
  return isSaving(from) || from === "RESUMING" ? "closes" : "none";
};

/** A stream that was closed on the way is not kept, even if both ends are of one kind. */
const streamEffectOfAll = (from: DeviceState, to: DeviceState, arcs: ReadonlyArray<Arc>): StreamEffect => {
  const opened = arcs.findLast(({ stream }) => stream === "opens-saving" || stream === "opens-resuming");
  return opened?.stream ?? streamEffectOf(from, to);
};

/** All arcs that a device with these features must know how to walk. */
export const arcsOf = (features: MigrationFeatures): ReadonlyArray<Arc> =>
  statesOf(features).flatMap((from) =>
    statesOf(features).flatMap((to) => {
      const path = pathOf(from, to, features);
      return path._tag === "Path" && path.arcs.length === 1 ? path.arcs : [];
    }),
  );
