import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { openGuest } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HELD, letGo } from "./held.ts";
import { isMidway } from "./journey.ts";
import { expectMoved } from "./outcome.ts";
import { eventually, MIB, openWorld, type World } from "./world.ts";

const MEMORY_BYTES = 24 * MIB;
const WRITTEN_BYTES = MIB;
const PAGES = MEMORY_BYTES / 4096;

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

/** A guest that writes its first pages only: what differs elsewhere was not written meanwhile. */
const startGuest = (name: string) =>
  world.startGuest({ name, memoryBytes: MEMORY_BYTES, dirtyRateBytesPerSecond: MIB, workingSetBytes: WRITTEN_BYTES });

/** Changes one bit of the incoming guest's memory, as a bad memory module or network card does: nobody is told. */
const flipBit = async (guest: string): Promise<void> => {
  const incoming = world.processesOf(guest).find(({ node }) => node === "b")!.spec;
  const { blocks } = await world.run(Effect.flatMap(openGuest(incoming), (opened) => opened.describe));
  const fd = openSync(blocks[0]!.path, "r+");
  try {
    const page = new Uint8Array(4096);
    let at = 0;
    // A page that has arrived, and is not zero.
    await eventually("a page has arrived", () => {
      for (at = WRITTEN_BYTES; at < MEMORY_BYTES; at += page.length) {
        readSync(fd, page, 0, page.length, at);
        if (page.some((byte) => byte !== 0)) return true;
      }
      return false;
    });
    writeSync(fd, Uint8Array.of(page[100]! ^ 4), 0, 1, at + 100);
  } finally {
    closeSync(fd);
  }
};

describe("capability verify", () => {
  it("finds a bit that flipped at the destination, sends its page again, and says so", async () => {
    await startGuest("flipped");
    const journey = await world.migrate("flipped", "b", { parameters: HELD });
    await journey.until(isMidway);
    await flipBit("flipped");
    await letGo(world, journey);
    const end = await expectMoved(world, journey, "b");
    const [block] = end.verify!;
    expect(block).toMatchObject({ "pages-damaged": 1 });
    expect(block!["pages-checked"]).toBeGreaterThanOrEqual(PAGES);
  });

  it("compares every page of a guest that writes, and finds none damaged", async () => {
    await world.startGuest({ name: "whole", memoryBytes: MEMORY_BYTES, dirtyRateBytesPerSecond: 4 * MIB });
    const journey = await world.migrate("whole", "b", { parameters: { "max-bandwidth": 0 } });
    const end = await expectMoved(world, journey, "b");
    expect(end.verify).toMatchObject([{ "pages-damaged": 0 }]);
    expect(end.verify![0]!["pages-checked"]).toBeGreaterThanOrEqual(PAGES);
    expect(end.waterfall!.parts).toContainEqual(expect.objectContaining({ part: "verify", beside: true }));
  });

  it("switched off compares nothing, and the guest finds the damage itself", async () => {
    await startGuest("trusting");
    const options = { parameters: HELD, capabilities: { verify: false } };
    const journey = await world.migrate("trusting", "b", options);
    await journey.until(isMidway);
    await flipBit("trusting");
    await letGo(world, journey);
    const end = await journey.end;
    expect(end).toMatchObject({ status: "completed" });
    expect(end.verify).toBeUndefined();
    await expect(expectMoved(world, journey, "b")).rejects.toThrow(/badCount/);
  });
});
