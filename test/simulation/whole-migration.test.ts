/** Whole migrations with every actor, a storm of faults, and nothing left to luck: each run follows from its seed. */
import { describe, expect, it } from "vitest";
import type { Breakage } from "./breakage.ts";
import { Violation } from "./guest-model.ts";
import { run } from "./run.ts";

const SEEDS = 1000;
/** Seeds within which a missing protection must be noticed. */
const BROKEN_SEEDS_MAX = 4000;

describe("a migration under faults", () => {
  it(`ends in all of ${SEEDS} seeds with one guest running: at the destination with equal memory, or at the source`, () => {
    const endings = new Map<string, number>();
    const seen = {
      dropped: 0,
      duplicated: 0,
      reordered: 0,
      crashes: 0,
      pauses: 0,
      lateWrites: 0,
      lostAnswers: 0,
      staleReads: 0,
    };
    let retried = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const outcome = check(seed);
      endings.set(outcome.ended, (endings.get(outcome.ended) ?? 0) + 1);
      if (outcome.attempts > 1) retried++;
      for (const name of Object.keys(seen) as Array<keyof typeof seen>) seen[name] += outcome.counters[name];
    }
    // A fault that never happened was not tested.
    for (const [name, count] of Object.entries(seen)) expect(count, name).toBeGreaterThan(0);
    expect(retried).toBeGreaterThan(0);
    expect(endings.get("completed") ?? 0).toBeGreaterThan(SEEDS / 2);
    expect([...endings.keys()].sort()).toEqual(["cancelled", "completed", "failed"]);
  });

  it("is the same migration again from the same seed", () => {
    const trace = (seed: number): string => {
      const lines: string[] = [];
      run(seed, { trace: (at, what, actor, detail) => lines.push(`${at} ${what} ${actor} ${detail}`) });
      return lines.join("\n");
    };
    expect(trace(7)).toBe(trace(7));
    expect(trace(7)).not.toBe(trace(8));
  });
});

describe("the invariants notice a migration that", () => {
  const breakages: ReadonlyArray<Breakage> = [
    "no round fence",
    "no epoch check",
    "acknowledge before applying",
    "clear the dirty bitmap late",
    "start without compare-and-set",
    "an unknown answer is taken for a yes",
  ];
  it.each(breakages)("breaks a rule: %s", (breakage) => {
    let found: unknown = null;
    for (let seed = 1; seed <= BROKEN_SEEDS_MAX && found === null; seed++) {
      try {
        // A late packet of an earlier attempt needs a sleeper with a packet in its hands.
        run(seed, { broken: [breakage], zombies: breakage === "no epoch check" });
      } catch (error) {
        found = error;
      }
    }
    expect(found).toBeInstanceOf(Violation);
  });
});

const check = (seed: number): ReturnType<typeof run> => {
  try {
    return run(seed);
  } catch (error) {
    throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
};
