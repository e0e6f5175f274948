import { assert, describe, it } from "vitest";
import { formatBytes, formatCount, formatMs, formatPercent, formatRate } from "./format.ts";

describe("figures for the eye", () => {
  it("shows bytes in the unit that keeps them short", () => {
    const shown = [
      0,
      1,
      1023,
      1024,
      4096,
      1024 ** 2 - 1,
      50 * 1024 ** 2,
      1024 ** 3 - 1,
      1.5 * 1024 ** 4,
      Number.NaN,
    ].map(formatBytes);
    assert.deepStrictEqual(shown, [
      "0 B",
      "1 B",
      "1023 B",
      "1.00 KiB",
      "4.00 KiB",
      "1.00 MiB",
      "50.0 MiB",
      "1.00 GiB",
      "1.50 TiB",
      "-",
    ]);
    assert.strictEqual(formatRate(50 * 1024 ** 2), "50.0 MiB/s");
    assert.strictEqual(formatRate(Number.POSITIVE_INFINITY), "-");
  });

  it("shows a duration without a jump where the unit changes", () => {
    const shown = [0, 0.42, 9.994, 9.996, 999.4, 999.6, 59_949, 59_951, 125_000, 3_599_600, 3_660_000].map(formatMs);
    assert.deepStrictEqual(shown, [
      "0 ms",
      "0.42 ms",
      "9.99 ms",
      "10 ms",
      "999 ms",
      "1.00 s",
      "59.9 s",
      "1 m 00 s",
      "2 m 05 s",
      "1 h 00 m",
      "1 h 01 m",
    ]);
  });

  it("never shows 100 % before all is done", () => {
    assert.deepStrictEqual([-1, 0, 0.999, 1, 2, Number.NaN].map(formatPercent), [
      "0 %",
      "0 %",
      "99 %",
      "100 %",
      "100 %",
      "-",
    ]);
  });

  it("sets thousands apart", () => {
    assert.strictEqual(formatCount(262_144), "262,144");
  });
});
