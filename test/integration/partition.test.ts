/** Hosts that are cut off from NATS for half a minute: precopy goes on where it stopped. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { childKey } from "../../services/cli/src/local-cluster.ts";
import { openProxy, type ProxyState, type TcpProxy } from "../chaos/proxy.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway } from "./journey.ts";
import { expectMoved } from "./outcome.ts";
import { type ActorName, COORDINATOR, loaderOf, MIB, openWorld, senderOf, type World, workersOf } from "./world.ts";

/** What is promised, ms. */
const PARTITION_MS = 30_000;

const keyOf = (actor: ActorName): string => childKey(...actor);
const ACTORS: ReadonlyArray<ActorName> = [
  COORDINATOR,
  ...["a", "b"].flatMap((node) => [senderOf(node), loaderOf(node), ...workersOf(node)]),
];

let world: World;
const proxies = new Map<string, TcpProxy>();
beforeAll(async () => {
  for (const actor of ACTORS) proxies.set(keyOf(actor), await openProxy());
  world = await openWorld({
    natsOf: ({ role, node, id }, url) => {
      const proxy = proxies.get(childKey(role, node, id))!;
      proxy.leadTo(Number(new URL(url).port));
      return `nats://127.0.0.1:${proxy.port}`;
    },
  });
});
afterAll(async () => {
  await world?.close();
  await Promise.all([...proxies.values()].map((proxy) => proxy.close()));
});

const enter = (actors: ReadonlyArray<ActorName>, state: ProxyState): void => {
  for (const actor of actors) proxies.get(keyOf(actor))!.enter(state);
};

describe("a partition of 30 s in precopy", () => {
  it.each([
    ["the source's host, whose connections are cut", [senderOf("a"), ...workersOf("a")], "cut"],
    ["the destination's host, whose connections swallow everything", [loaderOf("b"), ...workersOf("b")], "blackhole"],
    ["the coordinator, whose connections are cut", [COORDINATOR], "cut"],
  ] satisfies ReadonlyArray<readonly [string, ReadonlyArray<ActorName>, ProxyState]>)(
    "of %s, costs no attempt",
    async (what, actors, state) => {
      const name = `cut-${what.split(" ")[1]?.replace(/\W.*/, "")}`;
      await world.startGuest({ name, memoryBytes: 24 * MIB, dirtyRateBytesPerSecond: MIB });
      const journey = await world.migrate(name, "b", { parameters: HELD });
      await journey.until(isMidway);
      const before = journey.seen.at(-1)!;
      enter(actors, state);
      // The partition's own duration, not a wait for something.
      await new Promise((resolve) => setTimeout(resolve, PARTITION_MS));
      enter(actors, "open");
      await journey.until((info) => info.ram !== undefined && info.ram.transferred > before.ram!.transferred);
      await letGo(world, journey);
      const end = await expectMoved(world, journey, "b");
      expect(end.attempts).toBe(1);
    },
    120_000,
  );
});
