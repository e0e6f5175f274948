import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { device, moveWithDevices } from "./vfio-devices.ts";
import { MIB, openWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const MEMORY_BYTES = 8 * MIB;
const WINDOW_BYTES = MIB;

/** A guest whose device writes into the last part of its memory, which its vCPUs leave alone. */
const startGuest = (name: string, logged: boolean) => {
  const offsetBytes = MEMORY_BYTES - WINDOW_BYTES;
  const dma = { offsetBytes, lengthBytes: WINDOW_BYTES, bytesPerSecond: 4 * MIB, logged };
  return world.startGuest({
    name,
    memoryBytes: MEMORY_BYTES,
    dirtyRateBytesPerSecond: MIB,
    dmaWindowBytes: WINDOW_BYTES,
    devices: [device("nic0", { dma }), device("gpu0")],
  });
};

/** Sees only what vCPUs write; `verify` would find, and mend, what it misses. */
const BLIND = {
  parameters: { "dirty-tracker": "userfaultfd", "downtime-limit": 5000 },
  capabilities: { verify: false },
} as const;

describe("a device that writes into guest memory", () => {
  it("finds every page as it left it, at the destination and back at the source", async () => {
    const spec = await startGuest("logged", true);
    for (const node of ["b", "a"]) {
      const { devices } = await moveWithDevices(world, spec, node, BLIND);
      const { pagesRefused, stalePages } = devices.get("nic0")!.dma!;
      expect({ pagesRefused, stalePages }).toEqual({ pagesRefused: 0, stalePages: 0 });
      expect(devices.get("gpu0")!.dma).toBeNull();
    }
  });

  it("and does not log it leaves stale pages behind: what is sent is what was logged", async () => {
    const spec = await startGuest("unlogged", false);
    const { devices } = await moveWithDevices(world, spec, "b", BLIND);
    expect(devices.get("nic0")!.dma!.stalePages).toBeGreaterThan(0);
  });
});
