import { describe, expect, it } from "vitest";
import * as CodecChoice from "./codec-choice.ts";

const ITEM_BYTES = 256 * 1024;
const WINDOW_ITEMS = 16;

/** A lane that moves so many page bytes a millisecond, by codec; answers come for what was handed out a window before. */
class Lane {
  now = 0;
  readonly choice = CodecChoice.make(0);
  readonly inFlight: Array<keyof Lane["rates"]> = [];
  readonly sent = { none: 0, zstd: 0 };
  rates: { none: number; zstd: number };
  constructor(rates: { none: number; zstd: number }) {
    this.rates = rates;
  }

  run(ms: number): this {
    for (const until = this.now + ms; this.now < until; ) {
      while (this.inFlight.length < WINDOW_ITEMS) this.inFlight.push(this.choice.codec);
      const codec = this.inFlight.shift()!;
      this.now += ITEM_BYTES / this.rates[codec];
      this.sent[codec] += ITEM_BYTES;
      const items = { itemBytes: ITEM_BYTES, pageBytes: ITEM_BYTES };
      CodecChoice.applied(this.choice, items, this.inFlight.length * ITEM_BYTES, this.now);
    }
    return this;
  }
}
const MIB_S = 1024 ** 2 / 1000;

describe("the choice of a codec", () => {
  it.each([
    ["a slow lane, memory that compresses", { none: 100 * MIB_S, zstd: 280 * MIB_S }, "zstd"],
    ["a fast lane", { none: 900 * MIB_S, zstd: 300 * MIB_S }, "none"],
    ["memory that does not compress", { none: 100 * MIB_S, zstd: 98 * MIB_S }, "none"],
    ["a gain that is not worth the processors", { none: 100 * MIB_S, zstd: 105 * MIB_S }, "none"],
    ["a very slow lane", { none: 2 * MIB_S, zstd: 6 * MIB_S }, "zstd"],
  ] as const)("is right for %s, and spends little on finding out", (_, rates, best) => {
    const lane = new Lane({ ...rates }).run(30_000);
    expect(lane.choice.best).toBe(best);
    const moved = lane.sent.none + lane.sent.zstd;
    expect(moved / (rates[best] * 30_000)).toBeGreaterThan(0.9);
  });

  it("changes when the lane does", () => {
    const lane = new Lane({ none: 900 * MIB_S, zstd: 300 * MIB_S }).run(5000);
    lane.rates = { none: 50 * MIB_S, zstd: 150 * MIB_S };
    expect(lane.run(70_000).choice.best).toBe("zstd");
    lane.rates = { none: 900 * MIB_S, zstd: 300 * MIB_S };
    expect(lane.run(70_000).choice.best).toBe("none");
  });

  it("measures each codec by what was sent with it alone", () => {
    const lane = new Lane({ none: 100 * MIB_S, zstd: 300 * MIB_S });
    while (lane.choice.codec === "none") lane.run(1);
    // A window of the former one is still out.
    for (let item = 0; item < 2 * WINDOW_ITEMS - 2; item++) lane.run(0.1);
    expect(lane.choice.bytes).toBeLessThan(2 * ITEM_BYTES);
  });

  it("does not count the time between two rounds", () => {
    const lane = new Lane({ none: 100 * MIB_S, zstd: 300 * MIB_S }).run(30);
    lane.now += 5000;
    CodecChoice.beginRound(lane.choice, lane.now);
    expect(lane.run(3000).choice.best).toBe("zstd");
  });

  it("is the best one known once the guest stands still, whatever was being tried", () => {
    const lane = new Lane({ none: 900 * MIB_S, zstd: 100 * MIB_S });
    while (lane.choice.codec === "none") lane.run(1);
    CodecChoice.settle(lane.choice);
    expect(lane.choice.codec).toBe("none");
    expect(lane.run(60_000).choice.codec).toBe("none");
  });
});
