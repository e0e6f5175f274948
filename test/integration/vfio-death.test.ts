import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cancel, resumePaused, setParameters } from "../../services/cli/src/client.ts";
import type { Journey } from "./journey.ts";
import { REPORTS, reported } from "./reported.ts";
import { joinAsStranger, type Stranger } from "./stranger.ts";
import { device, expectMovedWithDevices, expectStayedWithDevices } from "./vfio-devices.ts";
import {
  type ActorName,
  agentOf,
  COORDINATOR,
  eventually,
  killAndAwaitRestart,
  loaderOf,
  MIB,
  openWorld,
  senderOf,
  type World,
  workerOf,
} from "./world.ts";

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

/** Precopy takes seconds, since its bandwidth is shared with the guest's memory. */
const HELD = { "downtime-limit": 1, "max-bandwidth": 8 * MIB };

/** Lifts both limits; a busy machine shall not be taken for a slow device. */
const PATIENT = { "downtime-limit": 5000, "max-bandwidth": 0 };
const letGo = (journey: Journey): Promise<boolean> =>
  world.run(setParameters({ migration: journey.id, parameters: PATIENT })).then(
    () => true,
    () => false,
  );

const startGuest = (name: string) =>
  world.startGuest({
    name,
    memoryBytes: 16 * MIB,
    dirtyRateBytesPerSecond: MIB,
    devices: [device("nic0"), device("gpu0", { preCopy: false })],
  });

/** Memory and device state are on their way, and neither is done. */
const isMidway = (info: Journey["seen"][number]): boolean =>
  info.status === "active" && (info.ram?.normal ?? 0) > 0 && (info.vfio?.transferred ?? 0) > 0;

describe("in the middle of precopy", () => {
  const MOMENTS: ReadonlyArray<{ readonly name: string; readonly actor: ActorName; readonly attempts: number }> = [
    { name: "worker", actor: workerOf("a", 0), attempts: 1 },
    { name: "agent-source", actor: agentOf("a"), attempts: 2 },
    { name: "agent-destination", actor: agentOf("b"), attempts: 2 },
    { name: "sender", actor: senderOf("a"), attempts: 2 },
    { name: "loader", actor: loaderOf("b"), attempts: 1 },
    { name: "coordinator", actor: COORDINATOR, attempts: 1 },
  ];

  it.each(MOMENTS)("the $actor.0 ($name) dies: attempt $attempts moves the guest with its devices", async (moment) => {
    const spec = await startGuest(`precopy-${moment.name}`);
    const journey = await world.migrate(spec.name, "b", { parameters: HELD });
    await journey.until(isMidway);
    await killAndAwaitRestart(world, moment.actor);
    if (moment.attempts > 1) await journey.until((info) => info.attempts === moment.attempts && isMidway(info));
    await eventually("it may end", () => letGo(journey));
    const { end } = await expectMovedWithDevices(world, spec, journey, "b");
    expect(end.attempts).toBe(moment.attempts);
  });

  it("it is cancelled: the devices run on at the source", async () => {
    const spec = await startGuest("cancelled");
    const journey = await world.migrate(spec.name, "b", { parameters: HELD });
    await journey.until(isMidway);
    await world.run(cancel({ migration: journey.id }));
    expect(await expectStayedWithDevices(world, spec, journey)).toMatchObject({ status: "cancelled" });
    await expectMovedWithDevices(world, spec, await world.migrate(spec.name, "b", { parameters: PATIENT }), "b");
  });
});

describe("with the devices in stop-and-copy", () => {
  const MOMENTS: ReadonlyArray<{
    readonly name: string;
    readonly actor: ActorName;
    readonly when: string;
    readonly report?: readonly [side: "source" | "destination", phase: string];
  }> = [
    { name: "worker", actor: workerOf("a", 0), when: "at once" },
    { name: "agent-source-1", actor: agentOf("a"), when: "at once" },
    { name: "agent-source-2", actor: agentOf("a"), when: "with the record written", report: ["source", "switching"] },
    { name: "agent-destination-1", actor: agentOf("b"), when: "at once" },
    { name: "agent-destination-2", actor: agentOf("b"), when: "while it loads", report: ["destination", "loading"] },
    {
      name: "agent-destination-3",
      actor: agentOf("b"),
      when: "while it commits",
      report: ["destination", "committing"],
    },
    { name: "sender-1", actor: senderOf("a"), when: "at once" },
    { name: "sender-2", actor: senderOf("a"), when: "with the record written", report: ["source", "switching"] },
    { name: "loader-1", actor: loaderOf("b"), when: "at once" },
    { name: "loader-2", actor: loaderOf("b"), when: "while it loads", report: ["destination", "loading"] },
    { name: "coordinator", actor: COORDINATOR, when: "at once" },
  ];

  it.each(MOMENTS)("the $actor.0 ($name) dies $when: guest and devices run once", async (moment) => {
    const spec = await startGuest(`stopped-${moment.name}`);
    const journey = await world.migrate(spec.name, "b", {
      parameters: PATIENT,
      capabilities: { "pause-before-switchover": true },
    });
    await journey.until((info) => info.status === "pre-switchover");
    const pid = world.pidOf(moment.actor);
    const kill = () => void process.kill(pid, "SIGKILL");
    const killed = moment.report === undefined ? null : reported(stranger, journey.id, moment.report, kill);
    if (killed === null) kill();
    await eventually("it may switch over", () =>
      world.run(resumePaused({ migration: journey.id })).then(
        () => true,
        () => journey.seen.at(-1)?.status !== "pre-switchover",
      ),
    );
    await killed;
    void journey
      .until((info) => info.attempts > 1 && info.status === "pre-switchover")
      .then(
        () => world.run(resumePaused({ migration: journey.id })),
        () => undefined,
      );
    await expectMovedWithDevices(world, spec, journey, "b");
    await expectMovedWithDevices(world, spec, await world.migrate(spec.name, "a", { parameters: PATIENT }), "a");
  });
});
