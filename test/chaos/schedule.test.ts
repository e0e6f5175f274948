import { describe, expect, it } from "vitest";
import { COMBINATIONS, KINDS, nameOf } from "./fault.ts";
import { scheduleOf } from "./schedule.ts";

const first = (count: number) => Array.from({ length: count }, (_, seed) => scheduleOf(seed));

describe("a schedule", () => {
  it("is its seed's alone", () => {
    expect(first(50)).toEqual(first(50));
    expect(scheduleOf(1)).not.toEqual(scheduleOf(2));
  });

  it("of successive seeds goes round every actor, fault and phase", () => {
    const met = new Set(first(2 * COMBINATIONS.length).flatMap(({ faults }) => faults.slice(0, 1).map(nameOf)));
    expect([...met].sort()).toEqual(COMBINATIONS.map(nameOf).sort());
  });

  it("has now and then no fault, mostly one, and sometimes two", () => {
    const counts = first(900).map(({ faults }) => faults.length);
    expect(counts.filter((count) => count === 0)).toHaveLength(100);
    expect(counts.filter((count) => count === 1).length).toBeGreaterThan(600);
    expect(counts.filter((count) => count === 2).length).toBeGreaterThan(50);
  });

  it("draws only what it is asked for", () => {
    for (const kind of KINDS) {
      for (let seed = 0; seed < 20; seed++) {
        const { faults } = scheduleOf(seed, (combination) => combination.kind === kind);
        expect(faults.every((fault) => fault.kind === kind)).toBe(true);
      }
    }
  });

  it("is cancelled only where that is its phase, and in a shape that can be", () => {
    for (const { cancels, faults, shape } of first(500)) {
      expect(cancels).toBe(faults[0]?.phase === "cancelling");
      if (cancels) expect(shape).not.toBe("swift");
    }
  });
});
