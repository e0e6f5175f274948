import * as Schema from "effect/Schema";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  arcPartsOf,
  lap,
  lengthOf,
  makeLaps,
  partsOf,
  totalOf,
  WATERFALL_ARCS_MAX,
  WATERFALL_PARTS_MAX,
  Waterfall,
} from "./waterfall.ts";

describe("laps", () => {
  it("follow each other without a gap, whatever is noted and when", () => {
    const names = fc.constantFrom("stop", "save", "sync", null);
    fc.assert(
      fc.property(fc.array(fc.tuple(names, fc.nat(1000))), (notes) => {
        const laps = makeLaps();
        let at = 5;
        for (const [part, later] of notes) {
          at += later;
          lap(laps, part, at);
        }
        lap(laps, null, at);
        const parts = partsOf(laps, "source");
        let end = 0;
        for (const { begin, length } of parts) {
          expect(begin).toBe(end);
          expect(length).toBeGreaterThanOrEqual(0);
          end = begin + length;
        }
        expect(totalOf(laps)).toBe(parts.length === 0 ? null : end);
      }),
    );
  });

  it("tell nothing of what goes on still, nor of anything after the end", () => {
    const laps = makeLaps();
    lap(laps, null, 1);
    expect(totalOf(laps)).toBeNull();
    lap(laps, "stop", 10);
    lap(laps, "stop", 12);
    lap(laps, "save", 15);
    expect(partsOf(laps, "source")).toEqual([{ part: "stop", side: "source", begin: 0, length: 5 }]);
    expect(totalOf(laps)).toBeNull();
    lap(laps, null, 40);
    lap(laps, "stop", 50);
    lap(laps, null, 60);
    expect(totalOf(laps)).toBe(30);
    expect(lengthOf({ parts: partsOf(laps, "source") }, "save")).toBe(25);
  });
});

describe("arcs of devices", () => {
  const laps = makeLaps();
  lap(laps, "stop", 1000);
  lap(laps, null, 9000);
  const arc = (at?: number) => ({ from: "A", to: "B", ms: 1.5, ...(at === undefined ? {} : { at }) });

  it("are those that began while the guest stood still, and were timed", () => {
    const arcs = [arc(), arc(999), arc(1000), arc(8999), arc(9000)];
    expect(arcPartsOf(laps, "source", [{ device: "nic0", arcs }])).toEqual(
      [0, 7999].map((begin) => ({ part: "A -> B", side: "source", begin, length: 1500, beside: true, device: "nic0" })),
    );
    expect(arcPartsOf(makeLaps(), "source", [{ device: "nic0", arcs }])).toEqual([]);
  });

  it("are no more than a report has room for, the longest", () => {
    const devices = Array.from({ length: 100 }, (_, n) => ({
      device: `nic${n}`,
      arcs: [{ from: "A", to: "B", ms: n, at: 2000 + n }],
    }));
    const parts = arcPartsOf(laps, "source", devices);
    expect(parts.map(({ device }) => device)).toEqual(devices.slice(-WATERFALL_ARCS_MAX).map(({ device }) => device));
    expect(2 * WATERFALL_ARCS_MAX).toBeLessThan(WATERFALL_PARTS_MAX - 32);
  });
});

describe("a waterfall that comes from another host", () => {
  const decode = Schema.decodeUnknownSync(Waterfall);
  const part = { part: "stop", side: "source", begin: 0, length: 1 };

  it("may have parts that this build does not know", () => {
    const newer = { parts: [{ ...part, part: "warp", colour: "red" }], total: 1, rest: 0 };
    expect(decode(newer)).toEqual({ parts: [{ ...part, part: "warp" }], total: 1, rest: 0 });
  });

  it.each([
    ["more parts than a switchover has", { parts: Array.from({ length: WATERFALL_PARTS_MAX + 1 }, () => part) }],
    ["a name without an end", { parts: [{ ...part, part: "x".repeat(256) }] }],
    ["a third side", { parts: [{ ...part, side: "above" }] }],
    ["a length that is no number", { parts: [{ ...part, length: Number.NaN }] }],
  ])("is refused with %s", (_, waterfall) => {
    expect(() => decode(waterfall)).toThrow();
  });
});
