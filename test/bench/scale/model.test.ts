import { describe, expect, it } from "vitest";
import { type Costs, type Host, type Load, lineThrough, passSeconds, predict } from "./model.ts";

const GIB = 1024 ** 3;
const NOTHING = { fixed: 0, perGiB: 0 };
const FREE = { sender: 0, workers: 0, loader: 0 };

const costs: Costs = {
  data: { sender: 0.2, workers: 1.2, loader: 1 },
  holes: { sender: 0.1, workers: 0.1, loader: 0.05 },
  efficiency: 1,
  setupMs: { fixed: 100, perGiB: 1 },
  syncMs: { fixed: 1, perGiB: 0.5 },
  downtimeMs: { fixed: 40, perGiB: 0.1 },
};
const host: Host = { processors: 1000, workers: 4, linkBytesPerSecond: 100e9 };
const idle: Load = {
  dataBytes: 10 * GIB,
  holeBytes: 0,
  dirtyBytesPerSecond: 0,
  workingSetBytes: 0,
  downtimeLimitMs: 300,
};

describe("the model of a migration", () => {
  it("takes a pass to last as long as its slowest stage", () => {
    expect(passSeconds(costs, host, 10 * GIB, 0)).toBeCloseTo(10);
    expect(passSeconds(costs, { ...host, workers: 1 }, 10 * GIB, 0)).toBeCloseTo(12);
    expect(passSeconds(costs, { ...host, processors: 2 }, 10 * GIB, 0)).toBeCloseTo(12);
    expect(passSeconds(costs, { ...host, linkBytesPerSecond: GIB / 4 }, 10 * GIB, 0)).toBeCloseTo(40);
    expect(passSeconds(costs, host, 0, 10 * GIB)).toBeCloseTo(1);
    expect(passSeconds({ ...costs, efficiency: 0.5 }, host, 10 * GIB, 0)).toBeCloseTo(20);
  });

  it("names what a pass waits for", () => {
    const slowest = (change: Partial<Host>) => predict(costs, { ...host, ...change }, idle).bottleneck;
    expect(slowest({})).toBe("loader");
    expect(slowest({ workers: 1 })).toBe("workers");
    expect(slowest({ processors: 1 })).toBe("processors");
    expect(slowest({ linkBytesPerSecond: 1e6 })).toBe("link");
  });

  it("adds up an idle guest: set-up, one pass, one sync, downtime with the last sync", () => {
    const { totalMs, downtimeMs, rounds, converges } = predict(costs, host, idle);
    expect(downtimeMs).toBeCloseTo(40 + 1 + 1 + 5);
    expect(totalMs).toBeCloseTo(110 + 10_000 + 6 + downtimeMs);
    expect([rounds, converges]).toEqual([1, true]);
  });

  it("goes round until what is left fits the limit, each round smaller by how much faster it moves than the guest writes", () => {
    const writing = { ...idle, dirtyBytesPerSecond: GIB / 10, workingSetBytes: 10 * GIB };
    const { rounds, downtimeMs, converges } = predict(
      { ...costs, syncMs: NOTHING, downtimeMs: NOTHING },
      host,
      writing,
    );
    // 1 GiB is left after the first pass, 0.1 GiB after the second: 100 ms.
    expect(rounds).toBe(2);
    expect(downtimeMs).toBeCloseTo(100);
    expect(converges).toBe(true);
  });

  it("leaves no more to any round than the guest writes over and over", () => {
    const hot = { ...idle, dirtyBytesPerSecond: 100 * GIB, workingSetBytes: GIB / 10 };
    expect(predict({ ...costs, syncMs: NOTHING, downtimeMs: NOTHING }, host, hot)).toMatchObject({
      rounds: 1,
      downtimeMs: expect.closeTo(100),
    });
  });

  it("says when it does not converge: the guest writes faster than a pass moves, or one sync takes longer than the limit", () => {
    const fast = { ...idle, dirtyBytesPerSecond: 2 * GIB, workingSetBytes: 10 * GIB };
    expect(predict(costs, host, fast).converges).toBe(false);
    expect(predict({ ...costs, syncMs: { fixed: 0, perGiB: 100 } }, host, idle).converges).toBe(false);
  });

  it("lets no part take less time in a larger guest, nor less than none, whatever two measurements say", () => {
    const through = (small: number, large: number) =>
      lineThrough({ bytes: 4 * GIB, value: small }, { bytes: 16 * GIB, value: large });
    expect(through(120, 80)).toEqual({ fixed: 100, perGiB: 0 });
    expect(through(-30, -50)).toEqual({ fixed: 0, perGiB: 0 });
    expect(through(-20, 32)).toEqual({ fixed: 0, perGiB: 2 });
    expect(through(-20, -2)).toEqual({ fixed: 0, perGiB: 0 });
  });

  it("has a line go through both of its measurements", () => {
    const line = lineThrough({ bytes: 4 * GIB, value: 10 }, { bytes: 16 * GIB, value: 34 });
    expect(line).toEqual({ fixed: 2, perGiB: 2 });
  });

  it("costs nothing where nothing costs anything", () => {
    const free: Costs = {
      data: FREE,
      holes: FREE,
      efficiency: 1,
      setupMs: NOTHING,
      syncMs: NOTHING,
      downtimeMs: NOTHING,
    };
    const { totalMs } = predict(free, { ...host, linkBytesPerSecond: Number.POSITIVE_INFINITY }, idle);
    expect(totalMs).toBe(0);
  });
});
