import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HELD, letGo } from "./held.ts";
import { isMidway } from "./journey.ts";
import { expectMoved } from "./outcome.ts";
import { MIB, openWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

describe("several migrations", () => {
  it("pass each other in opposite directions", async () => {
    await world.startGuest({ name: "there", memoryBytes: 24 * MIB, seed: 1 }, "a");
    await world.startGuest({ name: "back", memoryBytes: 24 * MIB, seed: 2 }, "b");
    const [there, back] = await Promise.all([
      world.migrate("there", "b", { parameters: HELD }),
      world.migrate("back", "a", { parameters: HELD }),
    ]);
    await Promise.all([there, back].map((journey) => journey.until(isMidway)));
    await Promise.all([there, back].map((journey) => letGo(world, journey)));
    await Promise.all([expectMoved(world, there, "b"), expectMoved(world, back, "a")]);
  });

  it("take one guest there and back three times", async () => {
    await world.startGuest({ name: "commuter", memoryBytes: 16 * MIB });
    for (let trip = 0; trip < 6; trip++) {
      const to = trip % 2 === 0 ? "b" : "a";
      const end = await expectMoved(world, await world.migrate("commuter", to), to);
      expect(end.attempts).toBe(1);
    }
    expect((await world.record("commuter"))?.epoch).toBe(6);
  });
});
