// Three NATS servers, of which one fails: the ownership record is on all of them, and its leader is the one that matters most.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fabric, readBuckets } from "@godwit/fabric";
import { type LocalNatsCluster, startNatsCluster } from "@godwit/fabric/local-nats-cluster";
import { BUCKETS, bucketOf, type MigrationInfo, OWNERSHIP_BUCKET } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { resumePaused } from "../../services/cli/src/client.ts";
import { isMidway, type Journey } from "./journey.ts";
import { expectMoved, expectRunsOnce } from "./outcome.ts";
import { joinAsStranger } from "./stranger.ts";
import { eventually, MIB, openWorld, type World } from "./world.ts";

/** No election begins before a leader has been silent for so long, ms. */
const ELECTION_MS_MIN = 2000;

let directory: string;
let servers: LocalNatsCluster;
let world: World;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "godwit-nats-cluster-"));
  servers = await startNatsCluster({ directory });
  world = await openWorld({ natsUrl: servers.url });
});
afterAll(async () => {
  await world?.close();
  await servers?.stop();
  rmSync(directory, { recursive: true, force: true });
});

/** Where a bucket's copies are, as an onlooker is told; none while nobody can say. */
const copiesOf = (bucket: string) =>
  world.run(
    readBuckets({ servers: servers.url, name: "onlooker" }, [bucketOf(bucket)]).pipe(
      Effect.map(([reading]) => reading?.copies ?? []),
      Effect.catch(() => Effect.succeed([])),
    ),
  );
const leader = async (bucket = OWNERSHIP_BUCKET): Promise<string | undefined> =>
  (await copiesOf(bucket)).find(({ state }) => state === "leads")?.server;

const someLeader = async (bucket = OWNERSHIP_BUCKET): Promise<string> => {
  let found: string | undefined;
  await eventually(`bucket ${bucket} has a leader`, async () => {
    found = await leader(bucket);
    return found !== undefined;
  });
  return found ?? "";
};

/** Asks the leader to hand over, as an admin does before maintenance. */
const stepDown = async (): Promise<void> => {
  const reply = await world.run(
    Effect.flatMap(Fabric, (fabric) =>
      fabric.request(`$JS.API.STREAM.LEADER.STEPDOWN.KV_${OWNERSHIP_BUCKET}`, new Uint8Array(), { timeoutMs: 5000 }),
    ),
  );
  expect(JSON.parse(Buffer.from(reply).toString())).toMatchObject({ success: true });
};

const precopy = async (guest: string): Promise<Journey> => {
  await world.startGuest({ name: guest, memoryBytes: 24 * MIB, dirtyRateBytesPerSecond: MIB });
  const journey = await world.migrate(guest, "b", { parameters: { "max-bandwidth": 12 * MIB } });
  await journey.until(isMidway);
  return journey;
};

/** A migration in which the next thing that happens is the switchover. */
const beforeSwitchover = async (guest: string): Promise<Journey> => {
  await world.startGuest({ name: guest, memoryBytes: 16 * MIB });
  const journey = await world.migrate(guest, "b", {
    parameters: { "max-bandwidth": 0 },
    capabilities: { "pause-before-switchover": true },
  });
  await journey.until((info) => info.status === "pre-switchover");
  return journey;
};

/**
 * A migration between the two writes of its switchover: the record is `switching`, and the destination's guest takes no device
 * state until `finish`.
 */
const amidSwitchover = async (guest: string) => {
  const stranger = await joinAsStranger(world, "godwit.m.*.*.*.report.destination");
  const journey = await beforeSwitchover(guest);
  const { pid } = world.processesOf(guest).find(({ node }) => node === "b")!.spec;
  process.kill(pid, "SIGSTOP");
  await world.run(resumePaused({ migration: journey.id }));
  await eventually("the destination loads", () =>
    stranger.heard.some(({ data }) => Buffer.from(data).includes('"phase":"loading"')),
  );
  await stranger.close();
  expect(await world.record(guest)).toMatchObject({ state: "switching" });
  return { journey, finish: () => process.kill(pid, "SIGCONT") };
};

const expectSameAttempt = async (journey: Journey): Promise<MigrationInfo> => {
  const end = await expectMoved(world, journey, "b");
  expect(end.attempts).toBe(1);
  expect(await expectRunsOnce(world, end.guest)).toBe("b");
  return end;
};

describe("the leader of the ownership records", () => {
  let lost: string | undefined;
  /** kill -9. */
  const loseLeader = async (): Promise<void> => {
    lost = await someLeader();
    await servers.kill(lost);
  };
  beforeEach(async () => {
    if (lost !== undefined) await servers.restart(lost);
    lost = undefined;
    await eventually("every server has all of both buckets", async () => {
      const states = await Promise.all(
        BUCKETS.map(async ({ name }) => (await copiesOf(name)).map(({ state }) => state)),
      );
      return states.every((copies) => copies.sort().join() === "current,current,leads");
    });
  });

  it("is killed in the middle of precopy: the migration completes, in the same attempt", async () => {
    const journey = await precopy("precopy");
    await loseLeader();
    await expectSameAttempt(journey);
    expect(await someLeader()).not.toBe(lost);
  });

  it("is killed when the switchover begins: the migration completes", async () => {
    const journey = await beforeSwitchover("switchover");
    const present = await someLeader();
    await world.run(resumePaused({ migration: journey.id }));
    lost = present;
    await servers.kill(present);
    await expectSameAttempt(journey);
    expect(await someLeader()).not.toBe(lost);
  });

  it("is killed in the switchover: the guest stands still until there is another one, and then runs once", async () => {
    const { journey, finish } = await amidSwitchover("switching");
    await loseLeader();
    finish();
    const { downtime } = await expectSameAttempt(journey);
    expect(downtime).toBeGreaterThan(ELECTION_MS_MIN);
  });

  it("hands over in the middle of precopy: nobody notices", async () => {
    const journey = await precopy("precopy-stepdown");
    const former = await someLeader();
    await stepDown();
    await eventually("another one leads", async () => ![undefined, former].includes(await leader()));
    await expectSameAttempt(journey);
  });

  it("hands over in the switchover: the migration completes", async () => {
    const { journey, finish } = await amidSwitchover("switching-stepdown");
    await stepDown();
    finish();
    await expectSameAttempt(journey);
  });
});

describe("a server that is lost and stays away", () => {
  it("does not keep a guest from being moved, nor from being moved back", async () => {
    const lost = await someLeader();
    await servers.kill(lost);
    for (const { name } of BUCKETS) await someLeader(name);
    await world.startGuest({ name: "later", memoryBytes: 16 * MIB });
    const there = await world.migrate("later", "b", { parameters: { "max-bandwidth": 0 } });
    await expectMoved(world, there, "b");
    const back = await world.migrate("later", "a", { parameters: { "max-bandwidth": 0 } });
    await expectMoved(world, back, "a");
    const copy = (await copiesOf(OWNERSHIP_BUCKET)).find(({ server }) => server === lost);
    expect(["behind", "offline"]).toContain(copy?.state);
  });
});
