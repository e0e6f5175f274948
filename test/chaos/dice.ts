/** What a run draws, from its seed alone: the same seed draws the same run, on any machine. */

export interface Dice {
  /** At least 0, less than 1. */
  readonly real: () => number;
  /** A whole number from `min` to `max`, both included. */
  readonly whole: (min: number, max: number) => number;
  /** From `min` to `max`, each order of magnitude as likely as the next. */
  readonly spread: (min: number, max: number) => number;
  readonly chance: (probability: number) => boolean;
  readonly pick: <A>(of: ReadonlyArray<A>) => A;
}

/** Mulberry32: 32 bits of state, even enough for times and choices. */
export const makeDice = (seed: number): Dice => {
  let state = seed >>> 0;
  const real = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    real,
    whole: (min, max) => min + Math.floor(real() * (max - min + 1)),
    spread: (min, max) => Math.round(min * (max / min) ** real()),
    chance: (probability) => real() < probability,
    pick: (of) => {
      if (of.length === 0) throw new Error("there is nothing to pick from");
      return of[Math.floor(real() * of.length)]!;
    },
  };
};
