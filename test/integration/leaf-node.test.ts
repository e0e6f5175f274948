// Node a knows only the hub's servers, node b only those of a cluster that a leaf node joins to it; the link between them fails.
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HELD, letGo } from "./held.ts";
import { isMidway } from "./journey.ts";
import { expectMoved, expectRunsOnce } from "./outcome.ts";
import { BRANCH_HOST, HUB_HOST, JS_DOMAIN, startTwoClusters, type TwoClusters } from "./two-clusters.ts";
import { MIB, openWorld, type World } from "./world.ts";

/** What is promised, ms. */
const CUT_MS = 20_000;
/** Bytes that vanish say nothing: nobody is told of it, so that a few seconds show what a longer outage would, ms. */
const BLACKHOLE_MS = 5000;
/** Less than a full packet of pages has: a server that gets a longer message closes the link that it came by. */
const BRANCH_CONFIG = `max_payload: ${256 * 1024}`;

let clusters: TwoClusters;
let world: World;
beforeAll(async () => {
  clusters = await startTwoClusters(BRANCH_CONFIG);
  world = await openWorld({
    natsUrl: clusters.hubUrl,
    natsUrlOf: { b: clusters.branchUrl },
    jsDomain: JS_DOMAIN,
  });
});
afterAll(async () => {
  await world?.close();
  await clusters?.close();
});

const portsOf = (urls: string): ReadonlyArray<number> => urls.split(",").map((url) => Number(new URL(url).port));

/** Whether anybody listens there. */
const answers = (host: string, port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host, port });
    socket.on("connect", () => resolve(true)).on("error", () => resolve(false));
    socket.on("connect", () => socket.destroy());
  });

describe("two clusters joined by a leaf node", () => {
  it("have no address in common", async () => {
    for (const port of portsOf(clusters.hubUrl)) expect(await answers(BRANCH_HOST, port)).toBe(false);
    for (const port of portsOf(clusters.branchUrl)) expect(await answers(HUB_HOST, port)).toBe(false);
  });

  it("a guest goes from one to the other, and back, in packets that the servers of both take", async () => {
    const name = "there-and-back";
    // No page of it is zero, so that packets are as long as they get.
    const mix = { zero: 0, compressible: 0, random: 100 };
    await world.startGuest({ name, memoryBytes: 32 * MIB, dirtyRateBytesPerSecond: MIB, mix });
    for (const destination of ["b", "a"]) {
      const end = await expectMoved(world, await world.migrate(name, destination), destination);
      expect(end.attempts).toBe(1);
      expect(await expectRunsOnce(world, name)).toBe(destination);
    }
  });
});

it("the link is away for 20 s in precopy, then it swallows everything: migrations both ways go on by themselves, in the same attempt", async () => {
  const journeys = [];
  for (const [source, destination] of [
    ["a", "b"],
    ["b", "a"],
  ] as const) {
    const name = `to-${destination}`;
    await world.startGuest({ name, memoryBytes: 24 * MIB, dirtyRateBytesPerSecond: MIB }, source);
    const journey = await world.migrate(name, destination, { parameters: HELD });
    await journey.until(isMidway);
    journeys.push({ journey, destination });
  }
  for (const [state, ms] of [
    ["cut", CUT_MS],
    ["blackhole", BLACKHOLE_MS],
  ] as const) {
    const before = journeys.map(({ journey }) => journey.seen.at(-1)!.ram!.transferred);
    clusters.link(state);
    // The outage's own duration, not a wait for something.
    await new Promise((resolve) => setTimeout(resolve, ms));
    clusters.link("open");
    for (const [index, { journey }] of journeys.entries())
      await journey.until(({ ram }) => ram !== undefined && ram.transferred > before[index]!);
  }
  for (const { journey, destination } of journeys) {
    await letGo(world, journey);
    const end = await expectMoved(world, journey, destination);
    expect(end.attempts).toBe(1);
    expect(await expectRunsOnce(world, end.guest)).toBe(destination);
  }
});
