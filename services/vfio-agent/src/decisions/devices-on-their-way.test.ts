/** Both agents against model devices over a bad way, from seeds. `GODWIT_SEEDS=5000` runs so many of each. */
import { describe, expect, it } from "vitest";
import { type Outcome, run } from "./conformance/run.ts";
import { BREAKAGES, type Breakage, type Change, LOSSY, QUIET, STORMY } from "./conformance/setting.ts";
import { Violation } from "./conformance/violation.ts";

const SEEDS = Number(process.env["GODWIT_SEEDS"] ?? 0);
const runs = (count: number, change: Change): Outcome[] =>
  Array.from({ length: SEEDS || count }, (_, index) => run(index + 1, change));

/** What is noticed first when a protection is left out. */
const noticed = (broken: Breakage): string => {
  // Where nothing but restarts happens the moment of a restart is what matters.
  const faults = broken.startsWith("a restarted agent") ? { ...QUIET, restart: 1 } : STORMY;
  for (let seed = 1; seed <= 400; seed++)
    try {
      run(seed, { faults, broken });
    } catch (error) {
      if (error instanceof Violation) return error.message;
      throw error;
    }
  return "nothing";
};

describe("devices on their way", () => {
  it("arrive with every byte when nothing goes wrong, whatever they can do and whatever is set", () => {
    for (const { ended, world } of runs(60, {})) {
      expect(ended).toBe("completed");
      for (const { state } of world.destination) expect(state).toBe("RUNNING");
      for (const { state } of world.source) expect(state).toBe("STOP");
    }
  });

  it("arrive over a way that loses, doubles, delays and reorders, with workers that come and go", () => {
    const outcomes = runs(60, { faults: LOSSY });
    const completed = outcomes.filter(({ ended }) => ended === "completed");
    expect(completed.length).toBeGreaterThan(outcomes.length * 0.8);
    expect(completed.some(({ source }) => (source.saving?.slices.resent ?? 0) > 0)).toBe(true);
  });

  it("never run at both sides, and come to an end, whatever fails", () => {
    const outcomes = runs(300, { faults: STORMY });
    const phases = new Set(outcomes.flatMap((outcome) => [...outcome.phases]));
    // A run that never saw a phase said nothing about it.
    expect([...phases].sort()).toEqual(
      [
        ...["Discarded", "Discarding", "Loaded", "Opening", "Precopy", "Quiescing", "Ready", "Resumed", "Resuming"],
        ...["Running", "Starting", "Stopped", "Stopping"],
      ].sort(),
    );
    expect(new Set(outcomes.map(({ ended }) => ended))).toEqual(new Set(["completed", "failed"]));
    const failures = new Set(outcomes.map(({ failure }) => failure));
    for (const code of ["device-failed", "device-over-budget"]) expect(failures).toContain(code);
  });

  it("whose agents die at any moment are led back, or on, by those that come after them", () => {
    const outcomes = runs(80, { faults: { ...QUIET, restart: 1 } });
    for (const { ended, world } of outcomes)
      for (const [index, { state }] of world.source.entries()) {
        if (ended === "failed") expect(state).toBe("RUNNING");
        else expect(world.destination[index]!.state).toBe("RUNNING");
      }
    expect(new Set(outcomes.map(({ ended }) => ended))).toEqual(new Set(["completed", "failed"]));
  });

  it.each(BREAKAGES)("would be noticed: %s", (broken) => {
    expect(noticed(broken)).toMatch(/^seed \d+ at/);
  });
});
