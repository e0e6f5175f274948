import { assert, describe, it } from "vitest";
import { parseDuration } from "./duration.ts";

describe("reading a duration", () => {
  it("takes ms without a unit, and cuts off parts of one", () => {
    const read = ["300", "300ms", "1.5s", "2m", "2 min", "1h", "0.5ms"].map(parseDuration);
    assert.deepStrictEqual(read, [300, 300, 1500, 120_000, 120_000, 3_600_000, 0]);
  });

  it("refuses what is none", () => {
    for (const text of ["", "fast", "-1s", "1d", "1s 2ms", "ms"]) assert.isNull(parseDuration(text), text);
  });
});
