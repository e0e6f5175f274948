// Node a knows only the hub's servers, node b only those of a cluster that a leaf node joins to it; the link between them fails.
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ProxyState } from "../chaos/proxy.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway } from "./journey.ts";
import { expectMoved, expectRunsOnce } from "./outcome.ts";
import { BRANCH_HOST, HUB_HOST, JS_DOMAIN, startTwoClusters, type TwoClusters } from "./two-clusters.ts";
import { MIB, openWorld, type World } from "./world.ts";

const CLUSTERS_MS = 120_000;
/** What is promised, ms. */
const CUT_MS = 20_000;

let clusters: TwoClusters;
let world: World;
beforeAll(async () => {
  clusters = await startTwoClusters();
  world = await openWorld({
    natsUrl: clusters.hubUrl,
    natsUrlOf: { b: clusters.branchUrl },
    jsDomain: JS_DOMAIN,
  });
}, CLUSTERS_MS);
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

  it("a guest goes from one to the other, and back", async () => {
    const name = "there-and-back";
    await world.startGuest({ name, memoryBytes: 32 * MIB, dirtyRateBytesPerSecond: MIB });
    for (const destination of ["b", "a"]) {
      const end = await expectMoved(world, await world.migrate(name, destination), destination);
      expect(end.attempts).toBe(1);
      expect(await expectRunsOnce(world, name)).toBe(destination);
    }
  });
});

describe("the link is away for 20 s in precopy", () => {
  it.each(["cut", "blackhole"] satisfies ReadonlyArray<ProxyState>)(
    "%s: the migration goes on by itself, in the same attempt",
    async (state) => {
      const name = `link-${state}`;
      await world.startGuest({ name, memoryBytes: 24 * MIB, dirtyRateBytesPerSecond: MIB });
      const journey = await world.migrate(name, "b", { parameters: HELD });
      await journey.until(isMidway);
      const before = journey.seen.at(-1)!;
      clusters.link(state);
      // The cut's own duration, not a wait for something.
      await new Promise((resolve) => setTimeout(resolve, CUT_MS));
      clusters.link("open");
      await journey.until((info) => info.ram !== undefined && info.ram.transferred > before.ram!.transferred);
      await letGo(world, journey);
      const end = await expectMoved(world, journey, "b");
      expect(end.attempts).toBe(1);
      expect(await expectRunsOnce(world, name)).toBe("b");
    },
    120_000,
  );
});
