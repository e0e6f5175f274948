import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Pace from "./pace.ts";

/** As pace.ts has it, ms. */
const BURST_MS = 50;
const rates = fc.integer({ min: 1, max: 2 ** 32 });
const items = fc.array(fc.integer({ min: 1, max: 256 * 1024 }), { minLength: 1, maxLength: 200 });

/** Spends whenever it may, and waits for payday when it may not; returns when each item was spent. */
const spendAll = (pace: Pace.Pace, sizes: ReadonlyArray<number>): number[] => {
  let now = pace.at;
  return sizes.map((bytes) => {
    for (let waits = 0; !Pace.maySpend(pace, now); waits++) {
      if (waits > 3) throw new Error("payday comes and nothing may be spent");
      now = Math.max(now, Pace.payday(pace));
    }
    Pace.spend(pace, bytes);
    return now;
  });
};

describe("the pace", () => {
  it("is kept: over any stretch no more is spent than its rate, a burst and one item", () => {
    fc.assert(
      fc.property(rates, items, (rate, sizes) => {
        const at = spendAll(Pace.make(rate, 0), sizes);
        const largest = Math.max(...sizes);
        for (let from = 0; from < at.length; from += 7) {
          let bytes = 0;
          for (let to = from; to < at.length; to++) {
            bytes += sizes[to]!;
            const allowed = ((at[to]! - at[from]! + BURST_MS) * rate) / 1000 + largest;
            expect(bytes).toBeLessThanOrEqual(allowed * (1 + 1e-9) + 1);
          }
        }
      }),
    );
  });

  it("is used: whoever waits for each payday spends at the rate", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1e6, max: 1e9 }), (rate) => {
        const at = spendAll(
          Pace.make(rate, 0),
          Array.from({ length: 200 }, () => 256 * 1024),
        );
        const bytes = 199 * 256 * 1024;
        const ms = at.at(-1)! - at[0]!;
        // Each payday is at least a millisecond away, so that a timer is never set in circles.
        expect(ms).toBeLessThanOrEqual((bytes * 1000) / rate + 200);
        expect(ms).toBeGreaterThanOrEqual((bytes * 1000) / rate - BURST_MS - 1);
      }),
    );
  });

  it("saves up no more than a burst, however long nothing was sent", () => {
    const pace = Pace.make(1_000_000, 0);
    expect(Pace.maySpend(pace, 3_600_000)).toBe(true);
    expect(pace.tokens).toBe(50_000);
  });

  it("lets an item pass that is larger than all it may save, and makes it up afterwards", () => {
    const pace = Pace.make(1000, 0);
    expect(Pace.maySpend(pace, 0)).toBe(true);
    Pace.spend(pace, 256_000);
    expect(Pace.maySpend(pace, 255_999)).toBe(false);
    expect(Pace.maySpend(pace, 256_000)).toBe(true);
  });

  it("of 0 is no limit", () => {
    const pace = Pace.make(0, 5);
    for (let n = 0; n < 1000; n++) {
      expect(Pace.maySpend(pace, 5)).toBe(true);
      Pace.spend(pace, 2 ** 40);
    }
    expect(pace.tokens).toBe(0);
    expect(Pace.payday(pace)).toBe(5);
  });

  it("that is tuned from no limit to a limit, or to another one, holds from then on", () => {
    fc.assert(
      fc.property(fc.constantFrom(0, 1000, 1e9), fc.integer({ min: 1e6, max: 1e8 }), (first, then) => {
        const pace = Pace.make(first, 0);
        for (let n = 0; n < 100; n++) if (Pace.maySpend(pace, n)) Pace.spend(pace, 10_000);
        pace.bytesPerSecond = then;
        let bytes = 0;
        for (let now = 1_000_000; now < 1_001_000; now++) {
          while (Pace.maySpend(pace, now)) {
            Pace.spend(pace, 10_000);
            bytes += 10_000;
          }
        }
        expect(bytes).toBeLessThanOrEqual(then * 1.05 + 20_000);
        expect(bytes).toBeGreaterThanOrEqual(then * 0.95 - 20_000);
      }),
    );
  });

  it("is not owed for the time that a clock was set back", () => {
    const pace = Pace.make(1_000_000, 10_000);
    Pace.maySpend(pace, 10_000);
    Pace.spend(pace, 1000);
    // An hour back: the debt is of a millisecond, and must not become one of an hour.
    expect(Pace.maySpend(pace, 10_000 - 3_600_000)).toBe(false);
    expect(Pace.maySpend(pace, 10_000 - 3_600_000 + 100)).toBe(true);
  });
});

describe("what did not travel", () => {
  it("is given back: a second of zero pages costs a second's bandwidth nothing", () => {
    const pace = Pace.make(1_000_000, 0);
    Pace.spend(pace, 500_000);
    expect(Pace.maySpend(pace, 0)).toBe(false);
    Pace.refund(pace, 500_000);
    expect(Pace.maySpend(pace, 0)).toBe(true);
  });

  it("is never more than a burst, and never a charge", () => {
    const pace = Pace.make(1_000_000, 0);
    Pace.refund(pace, 10_000_000);
    Pace.maySpend(pace, 0);
    expect(pace.tokens).toBeLessThanOrEqual(50_000);
    Pace.refund(pace, -10_000_000);
    expect(Pace.maySpend(pace, 0)).toBe(true);
  });
});

describe("waiting for a pace", () => {
  it("lets no more through than its bandwidth and what it may catch up with", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1000, max: 1e9 }),
        fc.array(fc.record({ afterMs: fc.nat(200), bytes: fc.integer({ min: 1, max: 1e6 }) }), { maxLength: 100 }),
        (bytesPerSecond, steps) => {
          const pace = Pace.make(bytesPerSecond, 0);
          let now = 0;
          let spent = 0;
          let last = 0;
          for (const { afterMs, bytes } of steps) {
            now += afterMs;
            if (Pace.waitMs(pace, now) > 0) continue;
            Pace.spend(pace, bytes);
            spent += bytes;
            last = bytes;
            expect(spent - last).toBeLessThanOrEqual((bytesPerSecond * (now + 50)) / 1000 + 1);
          }
        },
      ),
    );
  });
  it("of 0 lets everything through", () => {
    const pace = Pace.make(0, 0);
    Pace.spend(pace, 1e12);
    expect(Pace.waitMs(pace, 0)).toBe(0);
  });
});
