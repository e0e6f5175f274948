/** Postcopy of a guest in host pages of 2 MiB: each is fetched and placed whole, on real hugetlbfs. */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startPostcopy } from "../../services/cli/src/client.ts";
import { HUGE_BYTES, hugePagesObstacle, mountHugePages, reserveHugePages } from "../huge-pages.ts";
import { expectMoved } from "./outcome.ts";
import { eventually, loaderOf, MIB, openWorld, type World } from "./world.ts";

const MEMORY_BYTES = 32 * MIB;
/** The guest at both nodes, for each of three tests: workers keep files open for a while after their guest has gone. */
const PAGES_NEEDED = (3 * 2 * MEMORY_BYTES) / HUGE_BYTES;

const obstacle = hugePagesObstacle(PAGES_NEEDED);
const title = `host pages of 2 MiB${obstacle === null ? "" : ` (skipped: ${obstacle})`}`;

describe.skipIf(obstacle !== null)(title, () => {
  let world: World;
  const undo: Array<() => void> = [];
  beforeAll(async () => {
    undo.push(reserveHugePages(PAGES_NEEDED));
    world = await openWorld();
    for (const node of ["a", "b"])
      undo.push(mountHugePages(join(world.cluster.settingsOf(node).guestDirectory, "huge")));
  });
  afterAll(async () => {
    for (const guest of ["precopy", "postcopy", "killed"])
      for (const { spec } of world?.processesOf(guest) ?? []) process.kill(spec.pid, "SIGKILL");
    const [release, ...unmount] = undo;
    for (const one of unmount) one();
    await world?.close();
    release?.();
  });

  const start = (name: string) =>
    world.startGuest({
      ...{ name, memoryBytes: MEMORY_BYTES, hostPageBytes: HUGE_BYTES, dirtyRateBytesPerSecond: 4 * MIB },
    });
  const end = async (name: string): Promise<void> => {
    for (const { spec } of world.processesOf(name)) process.kill(spec.pid, "SIGTERM");
    await eventually(`guest ${name} is gone`, () => world.processesOf(name).length === 0);
  };

  it("are moved by precopy as any", async () => {
    await start("precopy");
    await expectMoved(world, await world.migrate("precopy", "b"), "b");
    await end("precopy");
  });

  it("are fetched whole: the guest finds every page as it left it, and faults once for each host page at most", async () => {
    await start("postcopy");
    const journey = await world.migrate("postcopy", "b", {
      parameters: { "downtime-limit": 1, "max-postcopy-bandwidth": 16 * MIB },
      capabilities: { "postcopy-ram": true, "postcopy-preempt": true },
    });
    await world.run(startPostcopy({ migration: journey.id }));
    const moved = await expectMoved(world, journey, "b");
    expect(moved["postcopy-requests"]).toBeGreaterThan(0);
    // Two vCPUs may touch one page at once.
    expect(moved["postcopy-requests"]).toBeLessThanOrEqual((2 * MEMORY_BYTES) / HUGE_BYTES);
    await end("postcopy");
  });

  it("survive the death of the loader in the middle: what it had placed is known, what it held in parts is fetched again", async () => {
    await start("killed");
    const journey = await world.migrate("killed", "b", {
      parameters: { "downtime-limit": 1, "max-postcopy-bandwidth": 8 * MIB },
      capabilities: { "postcopy-ram": true, "postcopy-preempt": true },
    });
    await world.run(startPostcopy({ migration: journey.id }));
    await journey.until(
      ({ status, ram }) => status === "postcopy-active" && ram !== undefined && ram.remaining < MEMORY_BYTES - 4 * MIB,
    );
    await world.kill(loaderOf("b"));
    await expectMoved(world, journey, "b");
    await end("killed");
  });
});
