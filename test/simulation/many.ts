/** Many migrations at once, and what came of them. */
import { Violation } from "./guest-model.ts";
import { type RunOptions, runAll } from "./run.ts";

export interface ManyFigures {
  readonly guests: number;
  /** Null: every guest ran once, in one place, with its memory. */
  readonly violation: string | null;
  /** How many came to which end. */
  readonly endings: string;
  readonly steps: number;
  /** By their own clock, and by ours. */
  readonly virtualMs: number;
  readonly seconds: number;
}

export const runMany = (seed: number, guests: number, options: RunOptions = {}): ManyFigures => {
  const startedMs = performance.now();
  const seconds = (): number => (performance.now() - startedMs) / 1000;
  try {
    const { outcomes, steps, virtualMs } = runAll(seed, guests, options);
    const ends = Object.groupBy(outcomes, ({ ended }) => ended);
    const endings = Object.entries(ends).map(([ended, those = []]) => `${those.length} ${ended}`);
    return { guests, violation: null, endings: endings.join(", "), steps, virtualMs, seconds: seconds() };
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    return { guests, violation: error.message, endings: "", steps: 0, virtualMs: 0, seconds: seconds() };
  }
};
