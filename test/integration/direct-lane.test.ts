/** Parameter `lane` with real processes: packets by connections of the workers' own, and by NATS whenever those break or cannot be had. */
import { connect } from "node:net";
import { networkId, openOutlet } from "@godwit/fabric/direct";
import { json, LaneOffer, type LanePurpose, type MigrationInfo, subjects } from "@godwit/protocol";
import { connect as connectNats } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startPostcopy } from "../../services/cli/src/client.ts";
import { type Detour, openDetour } from "./direct-detour.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway, type Journey } from "./journey.ts";
import { expectMoved, expectStayed } from "./outcome.ts";
import { joinAsStranger, type Stranger } from "./stranger.ts";
import { device, moveWithDevices } from "./vfio-devices.ts";
import { eventually, killAndAwaitRestart, loaderOf, MIB, openWorld, type World, workerOf } from "./world.ts";

let detour: Detour;
let world: World;
let stranger: Stranger;
beforeAll(async () => {
  detour = await openDetour();
  world = await openWorld({ directOf: detour.directOf });
  stranger = await joinAsStranger(world, "godwit.m.>");
});
afterAll(async () => {
  await stranger?.close();
  await world?.close();
  await detour?.close();
});

/** Packets by each lane, over all channels, as the status shows them. */
const packetsOf = ({ channels = [] }: MigrationInfo, purpose: LanePurpose = "ram") => {
  const counts = channels.flatMap(({ lanes = [] }) => lanes.filter((lane) => lane.purpose === purpose));
  const sum = (lane: "nats" | "direct"): number => counts.reduce((all, count) => all + count[lane], 0);
  return { nats: sum("nats"), direct: sum("direct"), newest: counts.map(({ lane }) => lane) };
};
/** Packets of the migration that NATS has carried. */
const heardOf = ({ id }: Pick<Journey, "id">, family = /\.ch\.\d+$/): number =>
  stranger.heard.filter(({ subject }) => subject.includes(id) && family.test(subject)).length;
const linesOf = ({ id }: Journey, words: string): number =>
  world
    .log()
    .split("\n")
    .filter((line) => line.includes(id) && line.includes(words)).length;

/** Resolves when some more packets have come by that lane than by now; a channel that gets nothing says nothing new. */
const moreBy = (journey: Journey, lane: "nats" | "direct"): Promise<MigrationInfo> => {
  const before = packetsOf(journey.seen.at(-1)!)[lane];
  return journey.until((info) => packetsOf(info)[lane] > before + 4);
};
const isDirect = (info: MigrationInfo): boolean => isMidway(info) && packetsOf(info).direct > 4;
const CHANNELS = 2;
/** On the way, and each channel's newest packet went by its connection. */
const isAllDirect = (info: MigrationInfo): boolean =>
  isDirect(info) &&
  packetsOf(info).newest.length === CHANNELS &&
  packetsOf(info).newest.every((lane) => lane === "direct");
const GUEST = { memoryBytes: 24 * MIB, workingSetBytes: MIB, dirtyRateBytesPerSecond: MIB };
const begin = async (name: string, lane: string, parameters: object = HELD): Promise<Journey> => {
  await world.startGuest({ name, ...GUEST });
  return world.migrate(name, "b", { parameters: { ...parameters, lane }, capabilities: { verify: true } });
};

describe("by the direct lane", () => {
  it("a guest's memory is moved, and NATS does not carry it", async () => {
    const before = detour.bytes();
    const journey = await begin("guest", "auto");
    // What went before that went by NATS.
    const then = packetsOf(await journey.until(isAllDirect));
    await letGo(world, journey);
    const end = await expectMoved(world, journey, "b");
    expect(end.attempts).toBe(1);
    expect(end.verify).toMatchObject([{ "pages-damaged": 0 }]);
    const { nats, direct } = packetsOf(end);
    await eventually("NATS has delivered what it carried", () => heardOf(journey) === nats);
    expect(direct - then.direct).toBeGreaterThan(4 * (nats - then.nats));
    expect(detour.bytes() - before).toBeGreaterThan(0);
    expect(linesOf(journey, "goes direct: 127.0.0.1:")).toBe(2);
    expect(linesOf(journey, "goes by NATS")).toBe(0);
  });

  it("so is the state of VFIO devices", async () => {
    // Slower than the connections, which on a busy machine are short of room otherwise.
    const sizes = { stateBytes: 12 * MIB, initialBytes: 2 * MIB, readBytesPerSecond: 4 * MIB };
    const devices = ["nic", "gpu"].map((name) => device(name, sizes));
    const spec = await world.startGuest({ name: "devices", memoryBytes: 4 * MIB, devices });
    let then = { nats: 0, direct: 0 };
    const { end } = await moveWithDevices(world, spec, "b", { parameters: { lane: "direct" } }, async (journey) => {
      await eventually("both channels have connections", () => linesOf(journey, "(devices) goes direct") >= CHANNELS);
      const known = journey.seen.length;
      then = packetsOf(await journey.until(() => journey.seen.length > known), "devices");
    });
    expect(end.attempts).toBe(1);
    const { nats, direct } = packetsOf(end, "devices");
    expect(direct - then.direct).toBeGreaterThan(nats - then.nats);
    await eventually("NATS has delivered it", () => heardOf({ id: end.migration }, /\.dev\.\d+$/) === nats);
  });

  it("so are the pages that a guest waits for in a postcopy, by a connection of their own", async () => {
    await world.startGuest({
      name: "late",
      memoryBytes: 48 * MIB,
      workingSetBytes: 32 * MIB,
      dirtyRateBytesPerSecond: 64 * MIB,
    });
    const journey = await world.migrate("late", "b", {
      parameters: { lane: "auto", "max-bandwidth": 32 * MIB, "downtime-limit": 20, "max-postcopy-bandwidth": 3 * MIB },
      capabilities: { "postcopy-ram": true, "postcopy-preempt": true },
    });
    await journey.until(({ ram }) => (ram?.["dirty-sync-count"] ?? 0) >= 2);
    await world.run(startPostcopy({ migration: journey.id }));
    const end = await expectMoved(world, journey, "b");
    const urgent = packetsOf(end, "urgent");
    expect(urgent.direct).toBeGreaterThan(0);
    expect(urgent.newest).toContain("direct");
    await eventually("NATS has delivered the others", () => heardOf(journey, /\.urgent$/) === urgent.nats);
    // Those that it does not wait for go by the channels' own.
    expect(packetsOf(end).newest).toContain("direct");
  });

  it("so are packets that are compressed", async () => {
    const journey = await begin("zstd", "direct", { ...HELD, "multifd-compression": "zstd" });
    const then = packetsOf(await journey.until(isAllDirect));
    await letGo(world, journey);
    const { nats, direct } = packetsOf(await expectMoved(world, journey, "b"));
    expect(direct - then.direct).toBeGreaterThan(4 * (nats - then.nats));
  });
});

describe("when the connections break in mid-round", () => {
  it.each(["cut", "blackhole"] as const)(
    "%s: the same attempt goes on by NATS, and direct again once it can",
    async (state) => {
      // A first pass so long that all of it happens meanwhile.
      await world.startGuest({ name: state, ...GUEST, memoryBytes: 80 * MIB });
      const options = { parameters: { ...HELD, lane: "auto" }, capabilities: { verify: true } };
      const journey = await world.migrate(state, "b", options);
      await journey.until(isDirect);
      detour.enter(state);
      try {
        await moreBy(journey, "nats");
        await eventually("a channel says that it goes by NATS", () => linesOf(journey, "goes by NATS") >= 1);
      } finally {
        detour.enter("open");
      }
      await moreBy(journey, "direct");
      await letGo(world, journey);
      const end = await expectMoved(world, journey, "b");
      expect(end.attempts).toBe(1);
      expect(end.verify).toMatchObject([{ "pages-damaged": 0 }]);
    },
  );

  it("a worker that is killed on it costs no attempt, and nor does the loader", async () => {
    const journey = await begin("killed", "auto");
    await journey.until(isDirect);
    await killAndAwaitRestart(world, workerOf("a", 0));
    await killAndAwaitRestart(world, loaderOf("b"));
    await moreBy(journey, "direct");
    await letGo(world, journey);
    const end = await expectMoved(world, journey, "b");
    expect(end.attempts).toBe(1);
    expect(end.verify).toMatchObject([{ "pages-damaged": 0 }]);
  });
});

describe("where no connection can be had", () => {
  it.each(["auto", "direct"])("since nobody can dial it, `%s` is NATS", async (lane) => {
    detour.enter("cut");
    try {
      const journey = await begin(`undialed-${lane}`, lane, { "max-bandwidth": 0 });
      const end = await expectMoved(world, journey, "b");
      expect(end.attempts).toBe(1);
      expect(packetsOf(end)).toMatchObject({ direct: 0, newest: ["nats", "nats"] });
      expect(linesOf(journey, "goes by NATS")).toBeGreaterThan(0);
    } finally {
      detour.enter("open");
    }
  });

  it("since the destination takes none, `direct` is refused and `auto` is NATS", async () => {
    await world.startGuest({ name: "refused", ...GUEST }, "b");
    const { error } = await (await world.migrate("refused", "a", { parameters: { lane: "direct" } })).end;
    expect(error).toMatchObject({
      code: "incompatible",
      actor: "loader",
      side: "destination",
      differences: [{ what: "lane", mine: "direct connections are off there (GODWIT_DIRECT_LISTEN)", yours: "direct" }],
    });
    await expectStayed(world, "refused", "b");
    const end = await expectMoved(world, await world.migrate("refused", "a", { parameters: { lane: "auto" } }), "a");
    expect(packetsOf(end)).toMatchObject({ direct: 0 });
  });

  it("nor asked for, the status says nothing of lanes", async () => {
    await world.startGuest({ name: "plain", ...GUEST });
    const end = await expectMoved(
      world,
      await world.migrate("plain", "b", { parameters: { "max-bandwidth": 0 } }),
      "b",
    );
    expect(end.channels?.some(({ lanes }) => lanes !== undefined)).toBe(false);
  });
});

describe("a stranger who connects", () => {
  const offers = json(LaneOffer);
  const route = (migration: string) => ({ migration, source: "a", destination: "b" });
  /** As a worker asks; without credentials on NATS anybody may. */
  const askFor = async (journey: Journey, change: object = {}): Promise<LaneOffer | string> => {
    const nc = await connectNats({ servers: world.cluster.url });
    try {
      const { epoch } = (await world.record(journey.seen[0]!.guest))!;
      const asked = { migration: journey.id, epoch, channel: 0, purpose: "ram", network: networkId(), ...change };
      const answer = await nc.request(subjects.directLane(route(journey.id)), JSON.stringify(asked));
      const code = answer.headers?.get("Nats-Service-Error-Code") ?? "";
      return code === "" ? (offers.decode(answer.data) as LaneOffer) : JSON.parse(answer.string()).reason;
    } finally {
      await nc.close();
    }
  };
  /** How a connection with this token, and this claim, ends; `open` when it does not. */
  const outcomeOf = async (offer: LaneOffer, journey: Journey, change: object = {}): Promise<string> => {
    const { epoch } = (await world.record(journey.seen[0]!.guest))!;
    const claim = { migration: journey.id, epoch, purpose: "ram", channel: 0, token: offer.token, ...change } as const;
    return new Promise((resolve) => {
      const close = openOutlet(offer, claim, {
        opened: () => {
          resolve("open");
          close();
        },
        ended: resolve,
      });
    });
  };
  /** What is said to who says this, until it is closed. */
  const answerTo = (said: Uint8Array): Promise<Buffer> =>
    new Promise((resolve) => {
      const got: Buffer[] = [];
      const socket = connect(detour.loaderPort, "127.0.0.1");
      socket.on("data", (chunk) => got.push(chunk));
      socket.on("error", () => undefined);
      socket.on("close", () => resolve(Buffer.concat(got)));
      socket.write(said);
    });

  const isRefused = (): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connect(detour.loaderPort, "127.0.0.1", () => {
        socket.destroy();
        resolve(false);
      });
      socket.on("error", () => resolve(true));
    });

  it("with no token, a false, used or foreign one, gets nothing, and nothing changes", async () => {
    const [journey, other] = [await begin("watched", "auto"), await begin("other", "auto")];
    await Promise.all([journey.until(isDirect), other.until(isDirect)]);
    for (const said of [Buffer.alloc(64), Buffer.alloc(300_000, 0xff), Buffer.from("GET / HTTP/1.0\r\n\r\n".repeat(4))])
      expect(await answerTo(said)).toHaveLength(0);
    const offer = (await askFor(journey)) as LaneOffer;
    const foreign = (await askFor(other)) as LaneOffer;
    expect(await outcomeOf({ ...offer, secret: "00".repeat(32) }, journey)).toMatch(/closed|ECONNRESET/);
    expect(await outcomeOf({ ...offer, token: "0".repeat(16) }, journey)).toMatch(/closed|ECONNRESET/);
    expect(await outcomeOf(foreign, journey)).toMatch(/closed|ECONNRESET/);
    expect(await outcomeOf(offer, journey, { purpose: "urgent" })).toMatch(/closed|ECONNRESET/);
    expect(await outcomeOf(offer, journey)).toBe("open");
    expect(await outcomeOf(offer, journey)).toMatch(/closed|ECONNRESET/);
    // Nobody is offered anything for what is not there.
    for (const change of [{ epoch: 999 }, { migration: other.id }, { purpose: "urgent" }])
      expect(await askFor(journey, change)).toContain("takes no direct connections");
    await Promise.all([letGo(world, journey), letGo(world, other)]);
    for (const end of [await expectMoved(world, journey, "b"), await expectMoved(world, other, "b")])
      expect(end).toMatchObject({ attempts: 1, verify: [{ "pages-damaged": 0 }] });
    expect(world.log()).toContain("a direct connection from 127.0.0.1:");
    // A port is open only while somebody arrives.
    await eventually("nobody listens", isRefused);
    expect(await askFor(journey)).toContain("takes no direct connections");
  });
});
