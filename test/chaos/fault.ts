/** The words of this test: whom a fault hits, what it does, and when. */

/** `owner` is the coordinator that the migration belongs to, `other` its idle replica; all others are those of this migration. */
export const ACTORS = [
  "coordinator (owner)",
  "coordinator (other)",
  "RAM sender",
  "loader",
  "multifd worker",
  "VFIO agent (source)",
  "VFIO agent (destination)",
  "NATS",
] as const;
export type Actor = (typeof ACTORS)[number];

/** Multifd workers of each node. */
export const WORKERS = 3;

/** `pause` is SIGSTOP and, later, SIGCONT; `cut` and `blackhole` are done to the actor's connections alone. */
export const KINDS = ["kill", "pause", "cut", "blackhole"] as const;
export type Kind = (typeof KINDS)[number];

/** How far the migration is when the fault comes, in the order in which it gets there; `cancelling` can come at any time before `switching`. */
const MIGRATION_PHASES = [
  "setup",
  "first pass",
  "later pass",
  "pre-switchover",
  "stopping",
  "switching",
  "loading",
  "committing",
  "postcopy",
  "running",
  "cancelling",
] as const;
/**
 * The same of a guest that is saved, ends with its host, and is restored on the other one: `paging` of a lazy restore, whose guest runs
 * already, `restoring` of any other.
 */
export const CHECKPOINT_PHASES = ["saving", "restoring", "paging"] as const;
export type CheckpointPhase = (typeof CHECKPOINT_PHASES)[number];
export type Phase = (typeof MIGRATION_PHASES)[number] | CheckpointPhase;
export const isOfCheckpoint = (phase: Phase): phase is CheckpointPhase =>
  (CHECKPOINT_PHASES as ReadonlyArray<Phase>).includes(phase);

export interface Combination {
  readonly actor: Actor;
  readonly kind: Kind;
  readonly phase: Phase;
}

/** Who has a part in it; a multifd worker is one of the node at which pages are copied. */
const CHECKPOINT_ACTORS: Record<CheckpointPhase, ReadonlyArray<Actor>> = {
  saving: ["RAM sender", "multifd worker", "NATS"],
  restoring: ["loader", "multifd worker", "NATS"],
  paging: ["loader", "NATS"],
};

/** The server is not cut off from itself: cuts of all its clients are what its death and its pause are. */
export const COMBINATIONS: ReadonlyArray<Combination> = ACTORS.flatMap((actor) =>
  KINDS.filter((kind) => actor !== "NATS" || kind === "kill" || kind === "pause").flatMap((kind) =>
    [...MIGRATION_PHASES, ...CHECKPOINT_PHASES.filter((phase) => CHECKPOINT_ACTORS[phase].includes(actor))].map(
      (phase) => ({ actor, kind, phase }),
    ),
  ),
);

export const nameOf = ({ actor, kind, phase }: Combination): string => `${actor}, ${kind}, ${phase}`;

/** When something is done to a migration: at the nth sign of a phase, 1 being the first; in a pass, a save or a fill a sign is a work item, else a report. */
export interface Moment {
  readonly phase: Exclude<Phase, "cancelling">;
  readonly sign: number;
}

export interface Fault extends Combination {
  readonly at: Moment;
  /** And then so long, ms; 0 acts within the turn in which the sign came. */
  readonly delayMs: number;
  /** How long it lasts, ms; a killed actor is started again by its supervisor at once, a killed server after this. */
  readonly durationMs: number;
  /** Which of the workers, if it is one. */
  readonly worker: number;
}

/**
 * How the migration is driven. `held` goes on in precopy until it is let go, `swift` is not held back, `pausing` stops in
 * pre-switchover until it is told to go on. `postcopy` is of a guest without VFIO devices, which is told to start it at once.
 */
export type MigrationShape = "held" | "swift" | "pausing" | "postcopy";
/** `checkpoint`: that guest is no more moved, but saved, and restored on the other node once its own has lost it. */
export type Shape = MigrationShape | "checkpoint";

export interface Schedule {
  readonly seed: number;
  readonly shape: Shape;
  /** How its packets travel. A cut or a black hole is between an actor and everybody. */
  readonly lane: "nats" | "auto";
  /** Whether pages that are dirtied again go as deltas. */
  readonly xbzrle: boolean;
  /** When the first fault comes, and what it would be if there is none. */
  readonly moment: Moment;
  /** From then until a held or pausing migration may go on, ms. */
  readonly goOnAfterMs: number;
  /** Whether it is cancelled at that moment. */
  readonly cancels: boolean;
  /** None: a run without a fault, for comparison. */
  readonly faults: ReadonlyArray<Fault>;
}
