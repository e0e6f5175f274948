import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { Fabric } from "@godwit/fabric";
import { checkMemory, openGuest } from "@godwit/guest";
import { json, MigrationList, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listMigrations, queryMigrate } from "../../services/cli/src/client.ts";
import { expectMoved } from "./outcome.ts";
import { eventually, MIB, openWorld, runStateOf, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

/** Processes that still have the memory of a guest of node a, which is removed, open or mapped. */
const holdersOf = (guest: string): ReadonlyArray<string> => {
  const isIts = (link: string) => link.includes(`/a/${guest}.ram`) && link.endsWith(" (deleted)");
  const files = (pid: string): ReadonlyArray<string> => {
    try {
      const descriptors = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
      return [...descriptors, ...readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")];
    } catch {
      // It has ended, or is another user's.
      return [];
    }
  };
  return readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && files(pid).some(isIts));
};

/** What one side itself says of the migration. */
const shownAt = async (subject: string, migration: string) => {
  const answer = await world.run(
    Effect.flatMap(Fabric, (fabric) => fabric.request(subject, new Uint8Array(0), { timeoutMs: 5000 })),
  );
  const list = json(MigrationList).decode(answer);
  if ("malformed" in list) throw new Error(list.malformed);
  return list.find((info) => info.migration === migration);
};

describe("a guest", () => {
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

  it("leaves no memory behind at its source: whoever worked with it lets go of it", async () => {
    await world.startGuest({ name: "gone", memoryBytes: 8 * MIB });
    await expectMoved(world, await world.migrate("gone", "b"), "b");
    await eventually("nobody has its memory", () => holdersOf("gone").length === 0);
  });

  it("is shown alike by the coordinator and by both sides", async () => {
    await world.startGuest({ name: "shown", memoryBytes: 8 * MIB });
    const journey = await world.migrate("shown", "b");
    const end = await expectMoved(world, journey, "b");
    await eventually("both sides have heard the ending", async () =>
      [
        await shownAt(subjects.sourceQuery("a"), journey.id),
        await shownAt(subjects.destinationQuery("b"), journey.id),
      ].every((info) => info?.["total-time"] === end["total-time"]),
    );
    expect(await shownAt(subjects.sourceQuery("a"), journey.id)).toEqual(end);
    expect(await shownAt(subjects.destinationQuery("b"), journey.id)).toEqual(end);
    expect(await world.run(queryMigrate({ migration: journey.id }))).toEqual(end);
    expect((await world.run(listMigrations({}))).find(({ migration }) => migration === journey.id)).toEqual(end);
  });

  it("that was paused arrives paused, and can be moved on", async () => {
    const spec = await world.startGuest({ name: "asleep", memoryBytes: 8 * MIB });
    await world.run(Effect.flatMap(openGuest(spec), (guest) => guest.pause));
    for (const node of ["b", "a"]) {
      const journey = await world.migrate("asleep", node);
      expect(await journey.end).toMatchObject({ status: "completed" });
      await eventually("one process is left", () => world.processesOf("asleep").length === 1);
      const [arrived] = world.processesOf("asleep");
      expect(arrived?.node).toBe(node);
      expect(await runStateOf(world, arrived!.spec)).toBe("paused");
      expect(await world.run(checkMemory(arrived!.spec))).toMatchObject({ done: true, badCount: 0 });
    }
  });
});
