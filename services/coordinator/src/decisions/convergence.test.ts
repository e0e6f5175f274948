import { PARAMETER_DEFAULTS, type Parameters, type PassReport } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { deadlinePassed, expectedDowntimeMs, FIXED_COST_MS, judge, type Progress } from "./convergence.ts";

const passes: fc.Arbitrary<PassReport> = fc.record({
  round: fc.integer({ min: 1, max: 2000 }),
  remaining: fc.oneof(fc.nat(2 ** 31), fc.constant(0)),
  bandwidth: fc.oneof(fc.nat(2 ** 31), fc.constant(0)),
  unverified: fc.nat(2 ** 31),
  "verify-bandwidth": fc.nat(2 ** 31),
  "sync-ms": fc.nat(2000),
  running: fc.boolean(),
});
const parameterSets: fc.Arbitrary<Parameters> = fc
  .record({
    "downtime-limit": fc.nat(5000),
    "avail-switchover-bandwidth": fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2 ** 31 })),
    "max-passes": fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2000 })),
    "stall-timeout": fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 200_000 })),
    "migration-deadline": fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 200_000 })),
  })
  .map((some) => ({ ...PARAMETER_DEFAULTS, ...some }));
const progresses: fc.Arbitrary<Progress> = fc.record({
  startedAt: fc.nat(1000),
  bestRemaining: fc.oneof(fc.nat(2 ** 31), fc.constant(Number.POSITIVE_INFINITY)),
  bestAt: fc.integer({ min: 1000, max: 100_000 }),
});
const nows = fc.integer({ min: 100_000, max: 500_000 });
const situation = [passes, progresses, parameterSets, nows] as const;

/** The verdicts, best first: nothing that an operator makes easier may move a pass down this list. */
const RANK = { SwitchOver: 0, Iterate: 1, GiveUp: 2 } as const;

describe("a pass", () => {
  it("leads to the switchover exactly when the guest stands still anyway, or the predicted downtime keeps the promise", () => {
    fc.assert(
      fc.property(...situation, (pass, progress, parameters, now) => {
        const fits = expectedDowntimeMs(pass, parameters) <= parameters["downtime-limit"];
        const verdict = judge(pass, progress, parameters, now);
        expect(verdict._tag === "SwitchOver").toBe(!pass.running || fits);
        if (verdict._tag !== "GiveUp") expect(verdict.expectedDowntimeMs).toBe(expectedDowntimeMs(pass, parameters));
      }),
    );
  });

  it.each(["downtime-limit", "max-passes", "stall-timeout", "migration-deadline"] as const)(
    "is never judged worse when %s is raised, or taken away",
    (name) => {
      fc.assert(
        fc.property(...situation, fc.nat(100_000), (pass, progress, parameters, now, more) => {
          const isLimit = name !== "downtime-limit";
          if (isLimit && parameters[name] === 0) return;
          const raised = { ...parameters, [name]: parameters[name] + more };
          const before = RANK[judge(pass, progress, parameters, now)._tag];
          expect(RANK[judge(pass, progress, raised, now)._tag]).toBeLessThanOrEqual(before);
          if (isLimit) {
            const without = { ...parameters, [name]: 0 };
            expect(RANK[judge(pass, progress, without, now)._tag]).toBeLessThanOrEqual(before);
          }
        }),
      );
    },
  );

  it("that left less, or met a faster link or a faster sync, is never judged worse", () => {
    fc.assert(
      fc.property(...situation, fc.nat(2 ** 30), (pass, progress, parameters, now, less) => {
        const better = {
          ...pass,
          remaining: Math.max(0, pass.remaining - less),
          bandwidth: pass.bandwidth === 0 ? 0 : pass.bandwidth + less,
          "sync-ms": Math.max(0, pass["sync-ms"] - (less % 1000)),
        };
        const before = RANK[judge(pass, progress, parameters, now)._tag];
        expect(RANK[judge(better, progress, parameters, now)._tag]).toBeLessThanOrEqual(before);
      }),
    );
  });

  it("that is judged later is never judged better: time makes nothing easier", () => {
    fc.assert(
      fc.property(...situation, fc.nat(100_000), (pass, progress, parameters, now, later) => {
        const before = RANK[judge(pass, progress, parameters, now)._tag];
        expect(RANK[judge(pass, progress, parameters, now + later)._tag]).toBeGreaterThanOrEqual(before);
      }),
    );
  });

  it("remembers the least that any pass has left, and when", () => {
    fc.assert(
      fc.property(...situation, (pass, progress, parameters, now) => {
        const verdict = judge(pass, progress, parameters, now);
        if (verdict._tag !== "Iterate") return;
        const better = pass.remaining < progress.bestRemaining;
        expect(verdict.progress).toEqual(
          better ? { ...progress, bestRemaining: pass.remaining, bestAt: now } : progress,
        );
      }),
    );
  });

  it("gives up for one of two reasons, which name the parameter to change or the numbers behind it", () => {
    fc.assert(
      fc.property(...situation, (pass, progress, parameters, now) => {
        const verdict = judge(pass, progress, parameters, now);
        if (verdict._tag !== "GiveUp") return;
        const { code, reason } = verdict.failure;
        if (code === "pass-limit") {
          expect(pass.round).toBeGreaterThan(parameters["max-passes"]);
          expect(reason).toContain(`${parameters["max-passes"]} passes`);
          return;
        }
        expect(code).toBe("stalled");
        expect(now - progress.bestAt).toBeGreaterThanOrEqual(parameters["stall-timeout"]);
        expect(reason).toContain(`${now - progress.bestAt} ms`);
      }),
    );
  });

  it("ends every precopy that makes no headway: sooner or later it switches over or gives up", () => {
    const pass: PassReport = {
      round: 1,
      remaining: 2 ** 40,
      bandwidth: 1e6,
      unverified: 0,
      "verify-bandwidth": 0,
      "sync-ms": 1,
      running: true,
    };
    for (const parameters of [
      { ...PARAMETER_DEFAULTS, "stall-timeout": 0 },
      { ...PARAMETER_DEFAULTS, "max-passes": 0 },
    ]) {
      let progress: Progress = { startedAt: 0, bestRemaining: Number.POSITIVE_INFINITY, bestAt: 0 };
      let round = 1;
      for (; round < 5000; round++) {
        const verdict = judge({ ...pass, round }, progress, parameters, round * 1000);
        if (verdict._tag !== "Iterate") break;
        progress = verdict.progress;
      }
      expect(round).toBeLessThan(1500);
    }
  });
});

describe("the predicted downtime", () => {
  const pass: PassReport = {
    round: 1,
    remaining: 1_000_000,
    bandwidth: 10_000_000,
    unverified: 0,
    "verify-bandwidth": 0,
    "sync-ms": 20,
    running: true,
  };
  it("is what is left over what the link moves, a sync like this one, and the fixed cost", () => {
    expect(expectedDowntimeMs(pass, PARAMETER_DEFAULTS)).toBe(100 + 20 + FIXED_COST_MS);
  });
  it("reckons with the bandwidth that the operator names, where one is named", () => {
    expect(expectedDowntimeMs(pass, { ...PARAMETER_DEFAULTS, "avail-switchover-bandwidth": 100_000_000 })).toBe(
      10 + 20 + FIXED_COST_MS,
    );
  });
  it("is for ever while no bandwidth was measured, unless nothing is left", () => {
    expect(expectedDowntimeMs({ ...pass, bandwidth: 0 }, PARAMETER_DEFAULTS)).toBe(Number.POSITIVE_INFINITY);
    expect(expectedDowntimeMs({ ...pass, bandwidth: 0, remaining: 0 }, PARAMETER_DEFAULTS)).toBe(20 + FIXED_COST_MS);
  });
});

describe("the deadline", () => {
  it("passes once, stays passed, and 0 never does", () => {
    fc.assert(
      fc.property(progresses, parameterSets, fc.nat(500_000), fc.nat(500_000), (progress, parameters, now, later) => {
        const passed = deadlinePassed(progress, parameters, now);
        const deadline = parameters["migration-deadline"];
        expect(passed !== null).toBe(deadline !== 0 && now - progress.startedAt >= deadline);
        if (passed === null) return;
        expect(passed.code).toBe("migration-deadline");
        expect(passed.reason).toContain(`${deadline} ms`);
        expect(deadlinePassed(progress, parameters, now + later)).not.toBeNull();
      }),
    );
  });
});

describe("a migration that stalls", () => {
  const pass = {
    round: 9,
    remaining: 0,
    bandwidth: 100_000_000,
    unverified: 0,
    "verify-bandwidth": 0,
    "sync-ms": 400,
    running: true,
  };
  const progress = { startedAt: 0, bestRemaining: 0, bestAt: 0 };
  const parameters = { ...PARAMETER_DEFAULTS, "downtime-limit": 300, "stall-timeout": 1000 };
  const reasonOf = (verdict: ReturnType<typeof judge>): string =>
    verdict._tag === "GiveUp" ? verdict.failure.reason : verdict._tag;

  it("because its tracker scans too long blames the scan, not the guest", () => {
    expect(reasonOf(judge(pass, progress, parameters, 1000))).toMatch(/scan for dirty pages alone takes 400 ms/);
  });

  it("because the guest writes too much blames the guest", () => {
    const busy = { ...pass, remaining: 100_000_000, "sync-ms": 1 };
    expect(reasonOf(judge(busy, progress, parameters, 1000))).toMatch(/dirties memory as fast as it is sent/);
  });
});
