/** Hosts that are cut off from NATS: precopy goes on where it stopped, and so does postcopy. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { recoverPostcopy, startPostcopy } from "../../services/cli/src/client.ts";
import { childKey } from "../../services/cli/src/local-cluster.ts";
import { openProxy, type ProxyState, type TcpProxy } from "../chaos/proxy.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway } from "./journey.ts";
import { expectMoved } from "./outcome.ts";
import {
  type ActorName,
  agentOf,
  COORDINATOR,
  loaderOf,
  MIB,
  openWorld,
  senderOf,
  type World,
  workersOf,
} from "./world.ts";

/** What is promised, ms. */
const PARTITION_MS = 30_000;
const POSTCOPY_PARTITION_MS = 10_000;

const keyOf = (actor: ActorName): string => childKey(...actor);
const ACTORS: ReadonlyArray<ActorName> = [
  COORDINATOR,
  ...["a", "b"].flatMap((node) => [senderOf(node), loaderOf(node), agentOf(node), ...workersOf(node)]),
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
    ["the source's host, whose connections are cut", [senderOf("a"), agentOf("a"), ...workersOf("a")], "cut"],
    [
      "the destination's host, whose connections swallow everything",
      [loaderOf("b"), agentOf("b"), ...workersOf("b")],
      "blackhole",
    ],
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

const SOURCE_HOST = [senderOf("a"), agentOf("a"), ...workersOf("a")];
const DESTINATION_HOST = [loaderOf("b"), agentOf("b"), ...workersOf("b")];

describe("a partition in postcopy", () => {
  const begin = async (name: string, parameters: Readonly<Record<string, unknown>> = {}) => {
    await world.startGuest({ name, memoryBytes: 48 * MIB, dirtyRateBytesPerSecond: MIB });
    const journey = await world.migrate(name, "b", {
      parameters: { "downtime-limit": 1, "max-postcopy-bandwidth": 4 * MIB, ...parameters },
      capabilities: { "postcopy-ram": true, "postcopy-preempt": true },
    });
    await world.run(startPostcopy({ migration: journey.id }));
    await journey.until(({ status }) => status === "postcopy-active");
    return journey;
  };

  it("of 10 s of the source's host, then of the destination's, then of the coordinator: it goes on by itself each time", async () => {
    const journey = await begin("cut-postcopy");
    for (const [actors, state] of [
      [SOURCE_HOST, "cut"],
      [DESTINATION_HOST, "blackhole"],
      [[COORDINATOR], "cut"],
    ] as const) {
      const before = journey.seen.at(-1)!;
      enter(actors, state);
      // The partition's own duration, not a wait for something.
      await new Promise((resolve) => setTimeout(resolve, POSTCOPY_PARTITION_MS));
      enter(actors, "open");
      await journey.until((info) => info.ram !== undefined && info.ram.remaining < before.ram!.remaining);
    }
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });

  it("with auto-recover off it stays postcopy-paused, with the reason, until it is told to recover", async () => {
    const journey = await begin("no-auto", { "auto-recover": "off" });
    enter(SOURCE_HOST, "cut");
    const paused = await journey.until(({ status }) => status === "postcopy-paused");
    enter(SOURCE_HOST, "open");
    expect(paused.note).toMatch(/the last page came \d+ s ago, and the guest waits for what it touches/);
    await journey.until(
      ({ status, "total-time": ms }) => status === "postcopy-paused" && ms > paused["total-time"] + 3000,
    );
    await world.run(recoverPostcopy({ migration: journey.id }));
    await expectMoved(world, journey, "b");
  });
});
