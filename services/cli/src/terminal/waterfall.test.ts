import { assert, describe, it } from "vitest";
import { type WaterfallLine, waterfallLines } from "./waterfall.ts";

const line = (part: string, begin: number | null, length: number, beside = false): WaterfallLine => ({
  part,
  side: "source",
  begin,
  length,
  beside,
});

describe("a drawn waterfall", () => {
  it("shows begin and length of each part, and a bar in its place", () => {
    const lines = [line("stop", 0, 8000), line("sync", 8000, 16_000), line("send", 12_000, 20_000, true)];
    assert.deepStrictEqual(waterfallLines(lines), [
      "PART  AT      BEGIN US      US",
      "stop  source         0   8,000  ########",
      "sync  source     8,000  16,000          ################",
      "send  source    12,000  20,000              --------------------",
    ]);
  });

  it("marks what took hardly any time, and draws nothing for what took none or was at no known time", () => {
    const [, first, none, unknown] = waterfallLines([
      line("first", 0, 1),
      line("none", 500, 0),
      line("unknown", null, 100_000),
    ]);
    assert.match(first ?? "", / {2}#$/);
    assert.notMatch(`${none}${unknown}`, /#/);
  });

  it("stays within its width where a part ends behind all others, and shows nothing of nothing", () => {
    for (const text of waterfallLines([line("long", 0, 1), line("late", 1_000_000, 1)]))
      assert.isAtMost(text.length, 80);
    assert.deepStrictEqual(waterfallLines([]), []);
  });
});
