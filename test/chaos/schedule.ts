/** From a seed to what happens in its run. */
import { type Dice, makeDice } from "./dice.ts";
import {
  COMBINATIONS,
  type Combination,
  type Fault,
  isOfCheckpoint,
  type Moment,
  type Phase,
  type Schedule,
  type Shape,
  WORKERS,
} from "./fault.ts";

/** A run in so many has no fault: what the others are compared with. Coprime to the number of combinations, or some would never come. */
const UNDISTURBED_EVERY = 9;
/** Of the others, so many have a second fault. */
const SECOND_FAULT = 0.15;
/** So many go by the direct lane. */
const DIRECT = 0.5;
/** So many send deltas. */
const XBZRLE = 0.5;
/** Most faults last no longer, ms, */
const DURATION_MS = { min: 100, max: 5000 };
/** and so many last until here, ms: a sleep that others take for death, and a partition that outlasts every patience. */
const LONG = { chance: 0.08, pauseMs: { min: 8000, max: 20_000 }, cutMs: { min: 8000, max: 30_000 } };
/** How late after its sign a fault may come, ms; half of them come at once. */
const DELAY_MS_MAX = 30;
/** Signs in a pass are work items, of which a first pass has some dozens. */
const SIGN_MAX: Partial<Record<Phase, number>> = {
  postcopy: 6,
  setup: 3,
  "first pass": 40,
  "later pass": 12,
  switching: 2,
  saving: 20,
  restoring: 8,
  paging: 4,
};
const GO_ON_MS_MAX = 600;
/** How long a killed server stays away, ms. */
const AWAY_MS = { min: 1, max: 2000 };

const SHAPES: Record<Phase, ReadonlyArray<Shape>> = {
  setup: ["swift"],
  "first pass": ["held"],
  "later pass": ["held"],
  "pre-switchover": ["pausing"],
  stopping: ["swift", "swift", "postcopy"],
  switching: ["swift", "swift", "postcopy"],
  loading: ["swift", "swift", "postcopy"],
  committing: ["swift", "swift", "postcopy"],
  postcopy: ["postcopy"],
  running: ["swift"],
  cancelling: ["held", "pausing"],
  saving: ["checkpoint"],
  restoring: ["checkpoint"],
  paging: ["checkpoint"],
};

/** Whether a run may have this fault: `--only`. */
export type Filter = (combination: Combination) => boolean;

/** Runs of successive seeds go round all combinations, each in another place than its neighbours. */
const combinationOf = (seed: number, allowed: ReadonlyArray<Combination>): Combination => {
  // Coprime to any number of combinations there can be, since it is a prime above it.
  const stride = 1009;
  return allowed[(seed * stride) % allowed.length]!;
};

/** Where a migration is when it is cancelled. */
const CANCELLED_IN: Record<Shape, ReadonlyArray<Moment["phase"]>> = {
  held: ["first pass", "later pass"],
  swift: ["setup"],
  postcopy: ["setup"],
  pausing: ["pre-switchover"],
  checkpoint: ["saving"],
};

const drawFault = (dice: Dice, combination: Combination, shape: Shape): Fault => {
  const { kind, actor } = combination;
  const phase = combination.phase === "cancelling" ? dice.pick(CANCELLED_IN[shape]) : combination.phase;
  const isLong = kind !== "kill" && dice.chance(LONG.chance);
  const longMs = kind === "pause" ? LONG.pauseMs : LONG.cutMs;
  const range = isLong ? longMs : actor === "NATS" && kind === "kill" ? AWAY_MS : DURATION_MS;
  return {
    ...combination,
    at: { phase, sign: dice.whole(1, SIGN_MAX[phase] ?? 1) },
    delayMs: dice.chance(0.5) ? 0 : dice.whole(1, DELAY_MS_MAX),
    durationMs: kind === "kill" && actor !== "NATS" ? 0 : dice.spread(range.min, range.max),
    worker: dice.whole(0, WORKERS - 1),
  };
};

export const scheduleOf = (seed: number, filter: Filter = () => true): Schedule => {
  const allowed = COMBINATIONS.filter(filter);
  if (allowed.length === 0) throw new Error("no fault is left to draw");
  const dice = makeDice(seed);
  const combination = combinationOf(seed, allowed);
  const drawn = dice.pick(SHAPES[combination.phase]);
  // The guest of a postcopy has no VFIO devices: agents have nothing to do with it but in that phase itself.
  const isOfDevices = combination.actor.startsWith("VFIO") && combination.phase !== "postcopy";
  const shape = isOfDevices && drawn === "postcopy" ? "swift" : drawn;
  const first = drawFault(dice, combination, shape);
  const others = allowed.filter(({ phase }) =>
    shape === "checkpoint"
      ? // Pages come from the file in one way or the other.
        isOfCheckpoint(phase) && (phase === "saving" || combination.phase === "saving" || phase === combination.phase)
      : !isOfCheckpoint(phase) && phase !== "cancelling" && (shape === "postcopy" || phase !== "postcopy"),
  );
  const second = others.length > 0 && dice.chance(SECOND_FAULT) ? drawFault(dice, dice.pick(others), shape) : null;
  const isUndisturbed = seed % UNDISTURBED_EVERY === 0;
  return {
    seed,
    shape,
    moment: first.at,
    goOnAfterMs: dice.whole(0, GO_ON_MS_MAX),
    cancels: !isUndisturbed && first.phase === "cancelling",
    // Drawn last, so that they change nothing of what a seed was before there was a choice.
    lane: dice.chance(DIRECT) ? "auto" : "nats",
    xbzrle: dice.chance(XBZRLE),
    faults: isUndisturbed ? [] : [first, ...(second === null ? [] : [second])],
  };
};
