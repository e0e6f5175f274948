/** What many runs have come to: endings, faults and where they struck. Tallies of several processes add up. */
import type { SimNetwork } from "@godwit/fabric/simulation";
import type { Strikes } from "./nemesis.ts";
import { type RunOptions, run } from "./run.ts";

/** Seeds with a violation that a tally names; more than a few say the same. */
const BAD_SHOWN_MAX = 20;

export interface Tally {
  seeds: number;
  /** Violations, the first of them by seed. */
  violations: number;
  readonly bad: Array<{ readonly seed: number; readonly what: string }>;
  readonly endings: Record<string, number>;
  readonly attempts: Record<string, number>;
  readonly terms: Record<string, number>;
  readonly seen: Record<string, number>;
  readonly strikes: Record<string, number>;
  flips: number;
  deltas: number;
  otherBases: number;
  /** Runs whose guest ran at the destination before its memory was there. */
  postcopies: number;
  /** Those that an operator has given up. */
  givenUp: number;
}

export const emptyTally = (): Tally => ({
  seeds: 0,
  violations: 0,
  bad: [],
  endings: {},
  attempts: {},
  terms: {},
  seen: {},
  strikes: {},
  flips: 0,
  deltas: 0,
  otherBases: 0,
  postcopies: 0,
  givenUp: 0,
});

const add = (to: Record<string, number>, key: string, count: number): void => {
  to[key] = (to[key] ?? 0) + count;
};

/** Runs seeds [from, from + count). */
export const tallyOf = (from: number, count: number, options: RunOptions = {}): Tally => {
  const tally = emptyTally();
  const strikes: Strikes = new Map();
  for (let seed = from; seed < from + count; seed++) {
    tally.seeds++;
    try {
      const { ended, attempts, terms, counters, flips, deltas, otherBases, wasPostcopy, wasGivenUp } = run(seed, {
        ...options,
        strikes,
      });
      add(tally.endings, ended, 1);
      add(tally.attempts, String(attempts), 1);
      add(tally.terms, String(terms), 1);
      for (const name of Object.keys(counters) as Array<keyof SimNetwork["counters"]>)
        add(tally.seen, name, counters[name]);
      tally.flips += flips;
      tally.deltas += deltas;
      tally.otherBases += otherBases;
      if (wasPostcopy) tally.postcopies++;
      if (wasGivenUp) tally.givenUp++;
    } catch (error) {
      tally.violations++;
      if (tally.bad.length < BAD_SHOWN_MAX)
        tally.bad.push({ seed, what: error instanceof Error ? error.message : String(error) });
    }
  }
  for (const [key, times] of strikes) add(tally.strikes, key, times);
  return tally;
};

/** Adds `other` to `tally`. */
export const addTally = (tally: Tally, other: Tally): void => {
  tally.seeds += other.seeds;
  tally.violations += other.violations;
  tally.flips += other.flips;
  tally.deltas += other.deltas;
  tally.otherBases += other.otherBases;
  tally.postcopies += other.postcopies;
  tally.givenUp += other.givenUp;
  tally.bad.push(...other.bad.slice(0, BAD_SHOWN_MAX - tally.bad.length));
  for (const part of ["endings", "attempts", "terms", "seen", "strikes"] as const)
    for (const [key, times] of Object.entries(other[part])) add(tally[part], key, times);
};
