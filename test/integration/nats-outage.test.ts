import { readdirSync } from "node:fs";
import { join } from "node:path";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resumePaused } from "../../services/cli/src/client.ts";
import { commandLine, isAlive } from "./guest-process.ts";
import { isMidway } from "./journey.ts";
import { expectMoved } from "./outcome.ts";
import { joinAsStranger } from "./stranger.ts";
import { eventually, loaderOf, MIB, openWorld, runStateOf, type World } from "./world.ts";

let world: World;
let restarted: LocalNats | undefined;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(async () => {
  await world?.close();
  await restarted?.stop();
});

/** The server of this world: the process that was started with its configuration. */
const serverPid = (): number => {
  const configuration = join(world.directory, "nats", "nats-server.conf");
  const pid = readdirSync("/proc").find(
    (name) => /^\d+$/.test(name) && commandLine(Number(name)).includes(configuration),
  );
  if (pid === undefined) throw new Error("there is no NATS server");
  return Number(pid);
};

const crash = async (): Promise<void> => {
  const pid = serverPid();
  process.kill(pid, "SIGKILL");
  await eventually("the server is gone", () => !isAlive(pid));
};

const restart = async (): Promise<void> => {
  restarted = await startNats({
    storeDir: join(world.directory, "nats"),
    port: Number(new URL(world.cluster.url).port),
  });
};

const crashAndRestart = async (): Promise<void> => {
  await crash();
  await restart();
};

describe("a NATS server that crashes and comes back", () => {
  it("in the middle of precopy: the migration completes", async () => {
    await world.startGuest({ name: "precopy", memoryBytes: 24 * MIB, dirtyRateBytesPerSecond: MIB });
    const journey = await world.migrate("precopy", "b", { parameters: { "max-bandwidth": 12 * MIB } });
    await journey.until(isMidway);
    await crashAndRestart();
    await expectMoved(world, journey, "b");
  });

  it("in the switchover: the guest stands still until the record can be reached, and then runs once", async () => {
    await world.startGuest({ name: "switchover", memoryBytes: 16 * MIB });
    const journey = await world.migrate("switchover", "b", {
      parameters: { "max-bandwidth": 0 },
      capabilities: { "pause-before-switchover": true },
    });
    await journey.until((info) => info.status === "pre-switchover");
    await world.run(resumePaused({ migration: journey.id }));
    await crashAndRestart();
    const end = await expectMoved(world, journey, "b");
    expect(end.attempts).toBe(1);
  });

  it("with the guest loaded at the destination, whose loader dies meanwhile: its successor commits and starts it, within the same attempt", async () => {
    const stranger = await joinAsStranger(world, "godwit.m.*.*.*.report.destination");
    await world.startGuest({ name: "loaded", memoryBytes: 16 * MIB });
    const journey = await world.migrate("loaded", "b", {
      parameters: { "max-bandwidth": 0 },
      capabilities: { "pause-before-switchover": true },
    });
    await journey.until((info) => info.status === "pre-switchover");
    const destination = world.processesOf("loaded").find(({ node }) => node === "b")!.spec;
    // It takes no device state until the server is away, and then its loader cannot commit.
    process.kill(destination.pid, "SIGSTOP");
    await world.run(resumePaused({ migration: journey.id }));
    await eventually("the destination loads", () =>
      stranger.heard.some(({ data }) => Buffer.from(data).includes('"phase":"loading"')),
    );
    await stranger.close();
    await crash();
    process.kill(destination.pid, "SIGCONT");
    await eventually("the guest is loaded", async () => (await runStateOf(world, destination)) !== "incoming");
    await world.kill(loaderOf("b"));
    await restart();
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });
});
