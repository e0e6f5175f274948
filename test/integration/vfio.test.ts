import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { device, moveWithDevices } from "./vfio-devices.ts";
import { MIB, openWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const STOP_COPY_ONLY = { preCopy: false } as const;
const WITHOUT_P2P = { p2p: false } as const;

const SETS = [
  { name: "precopy", devices: [device("nic0"), device("gpu0")], note: "two that precopy" },
  {
    name: "stop-copy",
    devices: [device("nic0", STOP_COPY_ONLY), device("gpu0", STOP_COPY_ONLY)],
    note: "two that give nothing before they are stopped",
  },
  {
    name: "no-p2p",
    devices: [device("nic0", WITHOUT_P2P), device("gpu0", { ...WITHOUT_P2P, ...STOP_COPY_ONLY })],
    note: "two without P2P states",
  },
  {
    name: "mixed",
    devices: [
      device("nic0"),
      device("gpu0", STOP_COPY_ONLY),
      device("dsa0", { ...STOP_COPY_ONLY, ...WITHOUT_P2P }),
      device("tty0", { preCopyData: "initial", initialBytes: 4096, stateBytes: 8192 }),
    ],
    note: "one of each kind",
  },
];

const SETTINGS: ReadonlyArray<{ readonly name: string; readonly parameters: Readonly<Record<string, unknown>> }> = [
  { name: "no-pre-copy", parameters: { "x-allow-pre-copy": "off" } },
  { name: "one-channel", parameters: { "x-migration-multifd-transfer": "off" } },
  { name: "config-after", parameters: { "x-migration-load-config-after-iter": "on" } },
  { name: "zstd", parameters: { "multifd-compression": "zstd" } },
  {
    name: "small-queues",
    parameters: { "x-migration-max-queued-buffers": 2, "x-migration-max-queued-bytes": 262_144, "multifd-channels": 4 },
  },
];

describe("a guest with VFIO devices", () => {
  it.each(SETS)("takes $note along, and back", async ({ name, devices }) => {
    const spec = await world.startGuest({ name, memoryBytes: 8 * MIB, dirtyRateBytesPerSecond: MIB, devices });
    const there = await moveWithDevices(world, spec, "b");
    expect(there.end.attempts).toBe(1);
    for (const { name: device } of spec.devices!)
      for (const side of ["source", "destination"])
        expect(there.end.waterfall!.parts).toContainEqual(expect.objectContaining({ device, side, beside: true }));
    expect((await moveWithDevices(world, spec, "a")).end.attempts).toBe(1);
  });

  it.each(SETTINGS)("moves with $name", async ({ name, parameters }) => {
    const spec = await world.startGuest({
      name,
      memoryBytes: 8 * MIB,
      dirtyRateBytesPerSecond: MIB,
      devices: [device("nic0"), device("gpu0", STOP_COPY_ONLY)],
    });
    const { end } = await moveWithDevices(world, spec, "b", { parameters });
    expect(end.attempts).toBe(1);
  });
});
