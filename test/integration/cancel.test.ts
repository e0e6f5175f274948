import { readStats } from "@godwit/guest";
import { lengthOf } from "@godwit/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cancel, resumePaused } from "../../services/cli/src/client.ts";
import { isMidway, type Journey } from "./journey.ts";
import { expectMoved, expectStayed } from "./outcome.ts";
import { eventually, MIB, openWorld, runStateOf, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const PAUSING = { "pause-before-switchover": true };

const begin = async (name: string, maxBandwidth: number, capabilities = {}): Promise<Journey> => {
  await world.startGuest({ name, memoryBytes: 16 * MIB, dirtyRateBytesPerSecond: MIB });
  return world.migrate(name, "b", { parameters: { "max-bandwidth": maxBandwidth }, capabilities });
};

const MOMENTS: ReadonlyArray<{
  readonly name: string;
  readonly when: string;
  readonly maxBandwidth: number;
  readonly reached: (journey: Journey) => Promise<unknown>;
}> = [
  { name: "at-once", when: "at once", maxBandwidth: 0, reached: async () => undefined },
  {
    name: "in-setup",
    when: "while the destination is being prepared",
    maxBandwidth: 0,
    reached: () => eventually("the destination's process is there", () => world.processesOf("in-setup").length === 2),
  },
  {
    name: "midway",
    when: "in the middle of precopy",
    maxBandwidth: 6 * MIB,
    reached: (journey) => journey.until(isMidway),
  },
  {
    name: "stopped",
    when: "in pre-switchover",
    maxBandwidth: 0,
    reached: (journey) => journey.until((info) => info.status === "pre-switchover"),
  },
];

describe("a migration that is cancelled", () => {
  it.each(MOMENTS)("$when leaves the guest running at the source, and can be tried again", async (moment) => {
    const journey = await begin(moment.name, moment.maxBandwidth, PAUSING);
    await moment.reached(journey);
    await world.run(cancel({ migration: journey.id }));
    const end = await journey.end;
    expect(end).toMatchObject({ status: "cancelled", error: { code: "cancelled" } });
    await expectStayed(world, moment.name, "a");
    await expect(world.run(cancel({ migration: journey.id }))).rejects.toMatchObject({ code: "wrong-state" });
    await expectMoved(world, await world.migrate(moment.name, "b"), "b");
  });
});

describe("pause-before-switchover", () => {
  it("holds the guest still in pre-switchover until continue", async () => {
    const journey = await begin("holding", 0, PAUSING);
    await expect(world.run(resumePaused({ migration: journey.id }))).rejects.toMatchObject({ code: "wrong-state" });
    await journey.until((info) => info.status === "pre-switchover");
    const source = world.processesOf("holding").find(({ node }) => node === "a")!.spec;
    expect(await runStateOf(world, source)).toBe("paused");
    const { pagesWritten } = await world.run(readStats(source));
    const reports = journey.seen.length;
    await journey.until((info) => info.status === "pre-switchover" && journey.seen.length >= reports + 3);
    expect((await world.run(readStats(source))).pagesWritten).toBe(pagesWritten);
    await world.run(resumePaused({ migration: journey.id }));
    const end = await expectMoved(world, journey, "b");
    // The wait is the operator's; the guest stood still for it all the same, and the figure says so.
    expect(lengthOf(end.waterfall!, "pre-switchover")).toBeGreaterThan(400_000);
  });
});
