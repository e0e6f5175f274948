import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { setParameters } from "../../services/cli/src/client.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway } from "./journey.ts";
import { expectMoved } from "./outcome.ts";
import { MIB, openWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const LIMIT = 6 * MIB;

describe("max-bandwidth", () => {
  it("paces precopy, and can be raised while the migration runs", async () => {
    // The limit is one of bytes on the wire: without zero pages those are the guest's.
    const mix = { zero: 0, compressible: 50, random: 50 };
    await world.startGuest({ name: "paced", memoryBytes: 48 * MIB, dirtyRateBytesPerSecond: MIB, mix });
    const journey = await world.migrate("paced", "b", { parameters: { "max-bandwidth": LIMIT } });
    const first = await journey.until(isMidway);
    const second = await journey.until(
      (info) =>
        isMidway(info) && info["total-time"] - first["total-time"] >= 1500 && info.ram!["dirty-sync-count"] === 1,
    );
    const seconds = (second["total-time"] - first["total-time"]) / 1000;
    const rate = (first.ram!.remaining - second.ram!.remaining) / seconds;
    expect(rate).toBeLessThan(1.3 * LIMIT);
    expect(rate).toBeGreaterThan(0.4 * LIMIT);

    await world.run(setParameters({ migration: journey.id, parameters: { "max-bandwidth": 0 } }));
    const nextRound = await journey.until((info) => (info.ram?.["dirty-sync-count"] ?? 0) >= 2);
    const paced = (second.ram!.remaining / LIMIT) * 1000;
    expect(nextRound["total-time"] - second["total-time"]).toBeLessThan(paced / 2);
    await expectMoved(world, journey, "b");
  });
});

describe("parameters of a running migration", () => {
  it("are refused when they are frozen, unknown or out of range, and the migration goes on", async () => {
    await world.startGuest({ name: "frozen", memoryBytes: 16 * MIB, dirtyRateBytesPerSecond: MIB });
    const journey = await world.migrate("frozen", "b", { parameters: HELD });
    await journey.until(isMidway);
    const tune = (parameters: Record<string, unknown>) =>
      world.run(setParameters({ migration: journey.id, parameters }));
    await expect(tune({ "multifd-channels": 8 })).rejects.toMatchObject({
      code: "wrong-state",
      reason: "Parameter 'multifd-channels' cannot change while a migration runs",
    });
    await expect(tune({ "max-bandwith": 8 })).rejects.toMatchObject({ code: "unknown-parameter" });
    await expect(tune({ "downtime-limit": -1 })).rejects.toMatchObject({ code: "invalid-parameter" });
    await letGo(world, journey);
    expect((await expectMoved(world, journey, "b")).channels).toHaveLength(2);
    await expect(tune({ "max-bandwidth": 8 })).rejects.toMatchObject({ code: "wrong-state" });
  });
});
