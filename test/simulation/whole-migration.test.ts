/** Whole migrations with every actor, a storm of faults, and nothing left to luck: each run follows from its seed. */
import { describe, expect, it } from "vitest";
import { BREAKAGES, type Breakage } from "./breakage.ts";
import { Violation } from "./guest-model.ts";
import { FAULTS } from "./nemesis.ts";
import { type RunOptions, run } from "./run.ts";
import { tell } from "./story.ts";
import { tallyOf } from "./tally.ts";

const SEEDS = 2000;
/** Seeds within which a missing protection must be noticed. */
const BROKEN_SEEDS_MAX = 10_000;

describe("a migration under faults", () => {
  it(`ends in all of ${SEEDS} seeds with one guest running: at the destination with equal memory, or at the source`, () => {
    const tally = tallyOf(1, SEEDS);
    const [first] = tally.bad;
    expect(first === undefined ? "no violation" : tell(first.seed)).toBe("no violation");
    // A fault that never happened was not tried.
    for (const name of Object.keys(tally.seen)) expect(tally.seen[name], name).toBeGreaterThan(0);
    for (const fault of FAULTS)
      expect(Object.keys(tally.strikes).filter((key) => key.startsWith(`${fault} @ `)).length, fault).toBeGreaterThan(
        10,
      );
    expect(tally.flips).toBeGreaterThan(0);
    expect(tally.attempts["2"]).toBeGreaterThan(0);
    expect(tally.terms["2"]).toBeGreaterThan(0);
    expect(tally.endings["completed"] ?? 0).toBeGreaterThan(SEEDS / 2);
    expect(Object.keys(tally.endings).sort()).toEqual(["cancelled", "completed", "failed"]);
  });

  it("is the same migration again from the same seed, and can be told", () => {
    expect(tell(7)).toBe(tell(7));
    expect(tell(7)).not.toBe(tell(8));
    expect(tell(8)).toContain("source         Precopy");
  });
});

/** What a breakage needs to show: most are hidden by the comparison of pages, which would find and repair the damage. */
const SITUATIONS: Partial<Record<Breakage, RunOptions>> = {
  // A late packet of an earlier attempt needs a sleeper with a packet in its hands.
  "no epoch check": { faults: ["late zombie"], hotPages: 400, verify: false },
  "a restarted loader forgets its fence": { faults: ["crash", "late zombie"], hotPages: 400, verify: false },
  "resume by a timer": { faults: ["register out of reach", "sleep"], verify: false },
  "no verification": { verify: true },
};

describe("the invariants notice a migration that", () => {
  it.each(BREAKAGES)("breaks a rule: %s", (breakage) => {
    let found: unknown = null;
    for (let seed = 1; seed <= BROKEN_SEEDS_MAX && found === null; seed++) {
      try {
        run(seed, { verify: false, ...SITUATIONS[breakage], broken: [breakage] });
      } catch (error) {
        found = error;
      }
    }
    expect(found).toBeInstanceOf(Violation);
  });
});
