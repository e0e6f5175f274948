import { assert, describe, it } from "vitest";
import { parseSize } from "./size.ts";

describe("a size as an operator writes it", () => {
  it.each([
    ["1GiB", 1024 ** 3],
    ["512MiB", 512 * 1024 ** 2],
    ["50MiB/s", 50 * 1024 ** 2],
    ["4096", 4096],
    ["0", 0],
    ["1.5g", 1.5 * 1024 ** 3],
    [" 64 K ", 65_536],
    ["100MB/s", 100e6],
    ["1.1KiB", 1126],
  ])("%s means %i bytes", (text, bytes) => {
    assert.deepStrictEqual(parseSize(text), { _tag: "Size", bytes });
  });

  it.each([
    ["", /"" is not a size/],
    ["-1GiB", /"-1GiB" is negative/],
    ["10 parsecs", /unknown unit "parsecs"/],
    ["0x10", /is not a size|unknown unit/],
    ["1e9", /is not a size|unknown unit/],
    ["NaN", /is not a size/],
    ["constructor", /is not a size/],
    ["1constructor", /unknown unit "constructor"/],
    ["99999999TiB", /too large/],
  ])("%s is refused, and the text says why and what to write", (text, why) => {
    const parsed = parseSize(text);
    assert.strictEqual(parsed._tag, "BadSize");
    if (parsed._tag === "BadSize") {
      assert.match(parsed.reason, why);
      assert.include(parsed.reason, "512MiB");
    }
  });
});
