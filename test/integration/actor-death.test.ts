import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cancel } from "../../services/cli/src/client.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway, type Journey } from "./journey.ts";
import { expectMoved, expectStayed } from "./outcome.ts";
import {
  COORDINATOR,
  eventually,
  killAndAwaitRestart,
  loaderOf,
  MIB,
  openWorld,
  senderOf,
  type World,
  workerOf,
  workersOf,
} from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

/** A migration in its first pass, which ends when it is let go. */
const midway = async (name: string): Promise<Journey> => {
  await world.startGuest({ name, memoryBytes: 24 * MIB, dirtyRateBytesPerSecond: MIB });
  const journey = await world.migrate(name, "b", { parameters: HELD });
  await journey.until(isMidway);
  return journey;
};

const channelEpochs = (info: { readonly channels?: ReadonlyArray<{ readonly epoch: number }> }): number =>
  (info.channels ?? []).reduce((sum, { epoch }) => sum + epoch, 0);

describe("in the middle of precopy", () => {
  it("a multifd worker dies: its channels go to another one, within the same attempt", async () => {
    const journey = await midway("worker-dies");
    const before = journey.seen.at(-1)!;
    await world.kill(workerOf("a", 0));
    await journey.until((info) => channelEpochs(info) > channelEpochs(before));
    await letGo(world, journey);
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });

  it("all multifd workers die: the migration waits for their successors, within the same attempt", async () => {
    const journey = await midway("workers-die");
    const before = journey.seen.at(-1)!;
    await Promise.all(workersOf("a").map((actor) => killAndAwaitRestart(world, actor)));
    await journey.until((info) => channelEpochs(info) > channelEpochs(before));
    await letGo(world, journey);
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });

  it("a multifd worker stands still for 2 s and goes on: what it sends late harms nothing", async () => {
    const journey = await midway("worker-sleeps");
    const pid = world.pidOf(workerOf("a", 1));
    process.kill(pid, "SIGSTOP");
    try {
      await new Promise((resolve) => setTimeout(resolve, 2000));
    } finally {
      process.kill(pid, "SIGCONT");
    }
    await letGo(world, journey);
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
    expect(world.pidOf(workerOf("a", 1))).toBe(pid);
  });

  it("the RAM sender dies: a second attempt completes", async () => {
    const journey = await midway("sender-dies");
    await world.kill(senderOf("a"));
    await journey.until((info) => info.attempts === 2);
    await letGo(world, journey);
    expect((await expectMoved(world, journey, "b")).attempts).toBe(2);
  });

  it("the loader dies: its successor goes on with the pages that are there, within the same attempt", async () => {
    const journey = await midway("loader-dies");
    const before = journey.seen.at(-1)!;
    await killAndAwaitRestart(world, loaderOf("b"));
    await journey.until((info) => info.ram!.transferred > before.ram!.transferred);
    await letGo(world, journey);
    const end = await expectMoved(world, journey, "b");
    expect(end.attempts).toBe(1);
    // What was applied before was not sent again.
    expect(end.ram!.normal).toBeLessThan((24 * MIB) / 4096 + before.ram!.normal);
  });

  it("the loader dies and the migration is cancelled: nothing stays behind at the destination", async () => {
    const journey = await midway("loader-gone");
    await world.kill(loaderOf("b"));
    await world.run(cancel({ migration: journey.id }));
    expect(await journey.end).toMatchObject({ status: "cancelled" });
    await expectStayed(world, "loader-gone", "a");
  });

  it("the coordinator dies: its successor adopts the migration, and the same attempt completes", async () => {
    const journey = await midway("coordinator-dies");
    await killAndAwaitRestart(world, COORDINATOR);
    await eventually("the successor has taken over", () =>
      letGo(world, journey).then(
        () => true,
        ({ code }) => {
          expect(["no-such-migration", "nats-unreachable"]).toContain(code);
          return false;
        },
      ),
    );
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });
});
