import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { setParameters } from "../../services/cli/src/client.ts";
import { device, expectMovedWithDevices, expectStayedWithDevices } from "./vfio-devices.ts";
import { MIB, type MigrateOptions, openWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const startGuest = (name: string, options: object, arrival: object = {}) =>
  world.startGuest({
    name,
    memoryBytes: 8 * MIB,
    dirtyRateBytesPerSecond: MIB,
    devices: [device("slow0", options, arrival), device("good0", { preCopy: false })],
  });

describe("capability switchover-ack", () => {
  const ACK = { "switchover-ack": true };

  it("keeps the guest at its source until each device that advised it has loaded its initial data", async () => {
    const spec = await startGuest("awaited", {}, { allocationMs: 5000 });
    const parameters = { "downtime-limit": 5000 };
    const journey = await world.migrate(spec.name, "b", { parameters, capabilities: ACK });
    const { end } = await expectMovedWithDevices(world, spec, journey, "b");
    expect(end.attempts).toBe(1);
    expect(end["total-time"]).toBeGreaterThanOrEqual(5000);
    expect(end["downtime"]).toBeLessThan(5000);
    const stopped = journey.seen.find(({ status }) => status === "device");
    const loaded = stopped?.vfio?.destination.map((info) => [info.device, info["initial-loaded"]]);
    // What gives nothing before it is stopped has no initial data to wait for.
    expect(loaded).toEqual([
      ["slow0", true],
      ["good0", undefined],
    ]);
  });

  it("ends a migration at migration-deadline when a device never has, and says which one", async () => {
    const spec = await startGuest("unanswered", {}, { allocationMs: 3_600_000 });
    const journey = await world.migrate(spec.name, "b", { capabilities: ACK });
    await journey.until((info) => info.vfio?.destination.some((each) => each["initial-loaded"] === false) === true);
    await world.run(setParameters({ migration: journey.id, parameters: { "migration-deadline": 1 } }));
    const end = await expectStayedWithDevices(world, spec, journey);
    expect(end).toMatchObject({ status: "failed", error: { code: "switchover-ack-missing" } });
    expect(end.error?.reason).toContain("slow0");
  });

  it("needs return-path", async () => {
    const spec = await startGuest("one-way", {});
    const capabilities = { ...ACK, "return-path": false };
    await expect(world.migrate(spec.name, "b", { capabilities })).rejects.toMatchObject({
      code: "capability-conflict",
    });
  });
});

describe("a device slower than downtime-limit", () => {
  const HASTY: MigrateOptions = { parameters: { "downtime-limit": 400, "stall-timeout": 4000 } };
  const SLOW = [
    { where: "source", arc: "PRE_COPY_P2P->STOP_COPY" },
    { where: "destination", arc: "RESUMING->STOP" },
  ] as const;

  it.each(SLOW)("at the $where is not waited for; once that is known no switchover is started", async (slow) => {
    const latency = { arcLatencyMs: { [slow.arc]: 1500 } };
    const spec = await startGuest(`slow-${slow.where}`, slow.where === "source" ? latency : {}, latency);
    const journey = await world.migrate(spec.name, "b", HASTY);
    await journey.until((info) => info.attempts === 2);
    const end = await expectStayedWithDevices(world, spec, journey);
    expect(end).toMatchObject({ status: "failed", attempts: 2, error: { code: "stalled" } });
    expect(end.error?.reason).toContain("VFIO devices");
    expect(journey.seen.filter(({ attempts, status }) => attempts === 2 && status === "device")).toEqual([]);
    // Who allows for it gets it.
    const parameters = { "downtime-limit": 10_000 };
    const patient = await world.migrate(spec.name, "b", { parameters });
    const moved = await expectMovedWithDevices(world, spec, patient, "b");
    const side = moved.end.vfio![slow.where].find((info) => info.device === "slow0")!;
    const [from, to] = slow.arc.split("->");
    expect(side.arcs.find((arc) => arc.from === from && arc.to === to)?.ms).toBeGreaterThanOrEqual(1400);
    expect(side.transferred).toBeGreaterThan(3 * MIB);
  });

  it("that never answers is left behind: guest and devices go on", async () => {
    const spec = await startGuest("hangs", { faults: [{ at: "PRE_COPY_P2P->STOP_COPY", kind: "hang" }] });
    const journey = await world.migrate(spec.name, "b", HASTY);
    await expectStayedWithDevices(world, spec, journey);
    const parameters = { "downtime-limit": 100_000 };
    await expectMovedWithDevices(world, spec, await world.migrate(spec.name, "b", { parameters }), "b");
    // The guest waits ten seconds for the device, and another attempt leads it back.
  });
});
