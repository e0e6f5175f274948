import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { expectMoved } from "./outcome.ts";
import { MIB, openWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

describe("a running guest", () => {
  it.each([1, 2, 4])("moves over %i channels", async (channels) => {
    const name = `channels${channels}`;
    await world.startGuest({ name, memoryBytes: 32 * MIB });
    const journey = await world.migrate(name, "b", { parameters: { "multifd-channels": channels } });
    const end = await expectMoved(world, journey, "b");
    expect(end.channels).toHaveLength(channels);
    expect(end.attempts).toBe(1);
    const pages = (32 * MIB) / 4096;
    expect(end.ram!.normal + end.ram!.duplicate).toBeGreaterThanOrEqual(pages);
    expect(end.ram!["normal-bytes"]).toBe(end.ram!.normal * 4096);
    expect(end.ram!.transferred).toBeGreaterThan(end.ram!["normal-bytes"]);
    expect(end.ram).toMatchObject({ total: 32 * MIB, remaining: 0 });
  });
});
