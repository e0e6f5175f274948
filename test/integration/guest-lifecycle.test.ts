/** The guest has a life of its own, also while it is moved: it reboots, shuts itself down, crashes. Its process may be gone at any moment. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type BuiltinSpec, openRegistry, resetBuiltin, shutDownBuiltin } from "@godwit/guest";
import type { MigrationInfo } from "@godwit/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resumePaused } from "../../services/cli/src/client.ts";
import { isAlive } from "./guest-process.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway, type Journey } from "./journey.ts";
import { expectMoved, expectStayed } from "./outcome.ts";
import { REPORTS, reported } from "./reported.ts";
import { joinAsStranger, type Stranger } from "./stranger.ts";
import { eventually, MIB, openWorld, senderOf, type World } from "./world.ts";

/** An ending that takes longer came from a deadline: the shortest, of a switchover and of a silent actor, has 15 s. */
const AT_ONCE_MS = 10_000;

let world: World;
let stranger: Stranger;
beforeAll(async () => {
  world = await openWorld();
  stranger = await joinAsStranger(world, REPORTS);
});
afterAll(async () => {
  await stranger?.close();
  await world?.close();
});

const MOMENTS = [
  {
    when: "in precopy",
    options: { parameters: HELD },
    isReached: isMidway,
  },
  {
    when: "in pre-switchover",
    options: { parameters: { "max-bandwidth": 0 }, capabilities: { "pause-before-switchover": true } },
    isReached: (info: MigrationInfo) => info.status === "pre-switchover",
  },
] as const;

const begin = async (name: string, moment: (typeof MOMENTS)[number]) => {
  const spec = await world.startGuest({ name, memoryBytes: 16 * MIB });
  const journey = await world.migrate(name, "b", moment.options);
  await journey.until(moment.isReached);
  return { spec, journey };
};

const kill = ({ pid }: BuiltinSpec): void => void process.kill(pid, "SIGKILL");

const killIncoming = (guest: string): void => {
  const incoming = world.processesOf(guest).find(({ node }) => node === "b");
  if (incoming === undefined) throw new Error(`there is no incoming process of guest ${guest}`);
  kill(incoming.spec);
};

const expectFailedAtOnce = async (journey: Journey, expected: object): Promise<void> => {
  const since = Date.now();
  const end = await journey.end;
  expect(end, world.log().slice(-4000)).toMatchObject({ status: "failed", error: expected });
  expect(Date.now() - since).toBeLessThan(AT_ONCE_MS);
};

/** Neither a process, nor a file, nor a word in the registry of node b. */
const expectNothingAtDestination = (journey: Journey, guest: string): Promise<void> =>
  eventually(`nothing is left of guest ${guest} at node b`, () => {
    const { guestDirectory, runtimeDirectory } = world.cluster.settingsOf("b");
    const incoming = join(runtimeDirectory, "incoming");
    const files = [
      ...(existsSync(guestDirectory) ? readdirSync(guestDirectory) : []).filter(
        (file) => file.startsWith(`${guest}.`) && !file.endsWith(".log"),
      ),
      ...(existsSync(incoming) ? readdirSync(incoming) : []).filter((file) => file.startsWith(journey.id)),
    ];
    return (
      files.length === 0 &&
      openRegistry(runtimeDirectory).find(guest) === null &&
      world.processesOf(guest).every(({ node }) => node !== "b")
    );
  });

/** The guest is gone, and so is all that its migration had made; the record is ready for the next guest of its name. */
const expectGone = async (journey: Journey, guest: string): Promise<void> => {
  await expectNothingAtDestination(journey, guest);
  expect(world.processesOf(guest)).toEqual([]);
  await eventually("the record is closed", async () => (await world.record(guest))?.open === false);
  expect(await world.record(guest)).toMatchObject({ state: "source", node: "a" });
  expect(existsSync(join(world.cluster.settingsOf("a").runtimeDirectory, "ram", journey.id))).toBe(false);
  expect(openRegistry(world.cluster.settingsOf("a").runtimeDirectory).find(guest)?.moving).toBeUndefined();
};

const expectNextOneMoves = async (name: string): Promise<void> => {
  await world.startGuest({ name, memoryBytes: 16 * MIB, seed: 7 });
  await expectMoved(world, await world.migrate(name, "b"), "b");
};

describe("a guest at the source", () => {
  it("that is reset in precopy arrives as it is after the reset", async () => {
    const { spec, journey } = await begin("reset", MOMENTS[0]);
    await world.run(resetBuiltin(spec));
    await journey.until((info) => (info.ram?.["dirty-sync-count"] ?? 0) >= 2);
    await world.run(resetBuiltin(spec));
    await letGo(world, journey);
    await expectMoved(world, journey, "b");
  });

  it("that shuts itself down ends its migration, with that reason", async () => {
    const { spec, journey } = await begin("shutdown", MOMENTS[0]);
    await world.run(shutDownBuiltin(spec));
    await expectFailedAtOnce(journey, {
      code: "guest-shutdown",
      side: "source",
      reason: expect.stringMatching(/guest shutdown .*the guest shut itself down/),
    });
    await expectGone(journey, "shutdown");
    await expectNextOneMoves("shutdown");
  });

  it.each(MOMENTS)("whose process is killed $when ends its migration, with that reason", async (moment) => {
    const name = `killed-${moment.when.replace(" ", "-")}`;
    const { spec, journey } = await begin(name, moment);
    kill(spec);
    await expectFailedAtOnce(journey, {
      code: "guest-failed",
      side: "source",
      reason: expect.stringContaining(`process ${spec.pid} is gone`),
    });
    await expectGone(journey, name);
    await expectNextOneMoves(name);
  });

  it("whose process is killed together with the RAM sender is found dead by the sender's next life", async () => {
    const { spec, journey } = await begin("both", MOMENTS[1]);
    kill(spec);
    await world.kill(senderOf("a"));
    const end = await journey.end;
    expect(end, world.log().slice(-4000)).toMatchObject({ status: "failed", error: { code: "guest-failed" } });
    await expectGone(journey, "both");
    await expectNextOneMoves("both");
  });
});

describe("an incoming guest", () => {
  it.each(MOMENTS)("whose process is killed $when ends the migration, and the next one arrives", async (moment) => {
    const name = `incoming-${moment.when.replace(" ", "-")}`;
    const { journey } = await begin(name, moment);
    killIncoming(name);
    await expectFailedAtOnce(journey, {
      code: "guest-failed",
      side: "destination",
      reason: expect.stringContaining("is gone without a word"),
    });
    await expectNothingAtDestination(journey, name);
    await expectStayed(world, name, "a");
    await expectMoved(world, await world.migrate(name, "b"), "b");
  });
});

/** A moment of the switchover: who has just reported what. */
const SWITCHOVER = [
  ["source", "stopping"],
  ["source", "switching"],
  ["destination", "loading"],
  ["destination", "committing"],
  ["destination", "running"],
] as const;

describe("a guest whose process is killed in the switchover", () => {
  const cases = SWITCHOVER.flatMap(([side, phase]) =>
    (["source", "incoming"] as const).map((victim) => ({ side, phase, victim, name: `${victim}-${phase}` })),
  );
  it.each(cases)("($victim, once the $side is $phase) runs once, or is gone: nobody hangs", async (moment) => {
    const { name, side, phase, victim } = moment;
    const { spec, journey } = await begin(name, MOMENTS[1]);
    const killed = reported(stranger, journey.id, [side, phase], () => {
      // It may be gone by itself: the source's copy once the destination runs.
      const found = world.processesOf(name).find(({ node }) => node === (victim === "source" ? "a" : "b"));
      if (found !== undefined) kill(found.spec);
    });
    await world.run(resumePaused({ migration: journey.id }));
    await killed;
    const since = Date.now();
    const end = await journey.end;
    expect(Date.now() - since).toBeLessThan(AT_ONCE_MS);
    await eventually("the record is closed", async () => (await world.record(name))?.open === false);
    if (end.status === "failed") {
      expect(end.error).toMatchObject({ code: "guest-failed", side: victim === "source" ? "source" : "destination" });
      expect(await world.record(name)).toMatchObject({ state: "source", node: "a" });
      return victim === "source" ? expectGone(journey, name) : expectStayed(world, name, "a");
    }
    expect(await world.record(name)).toMatchObject({ state: "destination", node: "b" });
    await eventually("the source's copy is gone", () => !isAlive(spec.pid));
    // Handed over, and killed there: lost as with its host, no other one is started.
    if (victim === "incoming") return expect(world.processesOf(name)).toEqual([]);
    await expectMoved(world, journey, "b");
  });
});
