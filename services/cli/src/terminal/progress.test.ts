import fc from "fast-check";
import { assert, describe, it } from "vitest";
import { endProgress, nothingShown, type Screen, type Shown, showProgress } from "./live-line.ts";
import { type Progress, progressBar, progressLine } from "./progress.ts";

const GIB = 1024 ** 3;
const active: Progress = {
  status: "active",
  round: 2,
  totalBytes: GIB,
  remainingBytes: GIB / 4,
  deviceBytesLeft: null,
  bytesPerSecond: 200 * 1024 ** 2,
  dirtyBytesPerSecond: 20 * 1024 ** 2,
  predictedDowntimeMs: 120,
};

describe("a line of progress", () => {
  it("says status, round, share sent, pace, what is left, downtime and dirty rate", () => {
    assert.strictEqual(
      progressLine(active, 120),
      "[################------] active round 2  75 %  200 MiB/s  256 MiB left  downtime ~120 ms  dirtied 20.0 MiB/s",
    );
  });

  it("shows what is not known yet as such", () => {
    const early = {
      ...active,
      round: 0,
      remainingBytes: GIB,
      bytesPerSecond: null,
      dirtyBytesPerSecond: null,
      predictedDowntimeMs: null,
    };
    assert.strictEqual(
      progressLine(early, 80),
      "[----------] active round 0  0 %  -  1.00 GiB left  downtime -  dirtied -",
    );
  });

  it("says how much of what is left is state of devices", () => {
    const devices = { ...active, deviceBytesLeft: 16 * 1024 ** 2 };
    assert.include(progressLine(devices, 120), "  256 MiB left (devices 16.0 MiB)  downtime");
  });

  it("leaves out the least important facts, then the bar, on a narrow terminal", () => {
    assert.strictEqual(
      progressLine(active, 80),
      "[#######---] active round 2  75 %  200 MiB/s  256 MiB left  downtime ~120 ms",
    );
    assert.strictEqual(progressLine(active, 40), "active round 2  75 %  200 MiB/s");
  });

  it("fits every terminal", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 300 }),
        fc.double({ min: 0, max: 2 ** 50, noNaN: true }),
        (columns, remainingBytes) => {
          assert.isBelow(progressLine({ ...active, remainingBytes }, columns).length, columns);
        },
      ),
    );
  });

  it("fills its bar only when all is done", () => {
    assert.deepStrictEqual(
      [0, 0.999, 1, 7].map((fraction) => progressBar(fraction, 6)),
      ["[----]", "[###-]", "[####]", "[####]"],
    );
  });
});

describe("progress over time", () => {
  const play = (
    screen: Screen,
    moments: ReadonlyArray<Progress>,
  ): { readonly output: string; readonly shown: Shown } => {
    let shown = nothingShown;
    let output = "";
    for (const moment of moments) {
      const step = showProgress(shown, moment, screen);
      shown = step.shown;
      output += step.output;
    }
    return { output, shown };
  };
  const moments = [
    { ...active, round: 1, remainingBytes: GIB },
    { ...active, round: 1, remainingBytes: GIB / 2 },
    active,
    active,
    { ...active, status: "completed", remainingBytes: 0 },
  ];

  it("overwrites one line of a terminal, and does not write what is there already", () => {
    const { output, shown } = play({ _tag: "Terminal", columns: 80 }, moments);
    assert.lengthOf(output.split("\r\u001b[K"), 1 + 4);
    assert.notInclude(output, "\n");
    assert.strictEqual(endProgress(shown, { _tag: "Terminal", columns: 80 }), "\r\u001b[K");
  });

  it("writes a whole line for each status and round elsewhere, without a bar or an escape sequence", () => {
    const { output, shown } = play({ _tag: "Lines" }, moments);
    const lines = output.split("\n");
    assert.deepStrictEqual(
      lines.map((line) => line.split("  ")[0]),
      ["active round 1", "active round 2", "completed round 2", ""],
    );
    assert.notMatch(output.replaceAll("\n", ""), /\p{Cc}/u);
    assert.strictEqual(endProgress(shown, { _tag: "Lines" }), "");
  });
});
