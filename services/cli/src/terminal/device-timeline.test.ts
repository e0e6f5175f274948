import { assert, describe, it } from "vitest";
import { arcsText, type DeviceTimeline, deviceLines } from "./device-timeline.ts";

const MIB = 1024 ** 2;
const vfio0: DeviceTimeline = {
  device: "vfio0",
  provider: "simulated",
  sides: [
    {
      side: "source",
      state: "STOP_COPY",
      movedBytes: 286 * MIB,
      leftBytes: 2 * MIB,
      initialBytes: 18 * MIB,
      arcs: [
        { from: "RUNNING", to: "PRE_COPY", ms: 1.2 },
        { from: "PRE_COPY", to: "STOP_COPY", ms: 31 },
      ],
    },
    { side: "destination", state: "RESUMING", movedBytes: 280 * MIB, leftBytes: 0, initialLoaded: true, arcs: [] },
  ],
};

describe("the devices of a migration", () => {
  it("are shown side by side, with where they are, what of them went, and their arcs", () => {
    assert.deepStrictEqual(deviceLines([vfio0]), [
      "device vfio0 (simulated)",
      "  source       STOP_COPY, 286 MiB sent, 2.00 MiB left, initial data 18.0 MiB",
      "               RUNNING -> PRE_COPY 1.20 ms -> STOP_COPY 31 ms",
      "  destination  RESUMING, 280 MiB written, initial data loaded",
    ]);
    assert.deepStrictEqual(deviceLines([]), []);
  });

  it("cannot be misread when initial data is missing", () => {
    const [side] = vfio0.sides;
    const lines = deviceLines([{ ...vfio0, sides: [{ ...side!, side: "destination", initialLoaded: false }] }]);
    assert.include(lines[1], "initial data NOT loaded");
  });

  it("show a reset as a new beginning", () => {
    const arcs = [
      { from: "RUNNING", to: "RESUMING", ms: 1 },
      { from: "RUNNING", to: "RESUMING", ms: 2 },
    ];
    assert.strictEqual(arcsText(arcs), "RUNNING -> RESUMING 1.00 ms; RUNNING -> RESUMING 2.00 ms");
  });
});
