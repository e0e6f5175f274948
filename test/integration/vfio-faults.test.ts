import type { BuiltinSpec } from "@godwit/guest";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  device,
  exchangeArrival,
  expectDevicesAt,
  expectMovedWithDevices,
  expectStayedWithDevices,
} from "./vfio-devices.ts";
import { MIB, openWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const STOP_COPY_ONLY = { preCopy: false, p2p: false } as const;
const KINDS = ["EIO", "error-state"] as const;

/** Each of these goes wrong once, in this order, and each ends a migration: what comes after it is not reached. */
const SOURCE_CHAINS = [
  {
    of: "precopy",
    options: {},
    places: ["RUNNING->PRE_COPY", "read", "PRE_COPY->PRE_COPY_P2P", "PRE_COPY_P2P->STOP_COPY"],
  },
  {
    of: "stop-copy",
    options: { preCopy: false },
    places: ["RUNNING->RUNNING_P2P", "RUNNING_P2P->STOP", "STOP->STOP_COPY", "read"],
  },
  { of: "plain", options: STOP_COPY_ONLY, places: ["RUNNING->STOP"] },
] as const;

const startGuest = (name: string, options: object) =>
  world.startGuest({
    name,
    memoryBytes: 8 * MIB,
    dirtyRateBytesPerSecond: MIB,
    devices: [device("bad0", options), device("good0")],
  });

/** A busy machine shall not be taken for a slow device. */
const PATIENT = { parameters: { "downtime-limit": 5000 } };
const migrate = (spec: BuiltinSpec, node = "b") => world.migrate(spec.name, node, PATIENT);

const expectDeviceFailed = async (spec: BuiltinSpec, side: string) => {
  const end = await expectStayedWithDevices(world, spec, await migrate(spec));
  expect(end).toMatchObject({ status: "failed", error: { code: "device-failed", side } });
  expect(end.error?.reason).toContain("bad0");
  return end;
};

describe("a device fails at the source", () => {
  it.each(SOURCE_CHAINS.flatMap((chain) => KINDS.map((kind) => ({ ...chain, kind }))))(
    "a $of device, with $kind, at each place: the guest stays with its devices, and moves when nothing fails",
    async ({ of, options, places, kind }) => {
      const faults = places.map((at) => ({ at, kind }));
      const spec = await startGuest(`${of}-${kind.toLowerCase()}`, { ...options, faults });
      for (const _ of places) await expectDeviceFailed(spec, "source");
      await expectMovedWithDevices(world, spec, await migrate(spec), "b");
    },
  );

  it("on its way back, too: it is led to RUNNING again and again, at last by a reset", async () => {
    const faults = [
      { at: "PRE_COPY_P2P->STOP_COPY", kind: "EIO" },
      { at: "PRE_COPY_P2P->RUNNING_P2P", kind: "EIO", times: 5 },
    ];
    const spec = await startGuest("way-back", { faults });
    const end = await expectDeviceFailed(spec, "source");
    const devices = await expectDevicesAt(world, spec, "a");
    expect(devices.get("bad0")!.resets).toBe(1);
    expect(end.note).toContain("only a reset brought device bad0 back");
    expect(devices.get("good0")!.resets).toBe(0);
    await expectMovedWithDevices(world, spec, await migrate(spec), "b");
  });

  it("to tell its bytes: it is read all the same", async () => {
    const spec = await startGuest("uncounted", { faults: [{ at: "precopy-info", kind: "EIO", times: 1000 }] });
    await expectMovedWithDevices(world, spec, await migrate(spec), "b");
  });
});

describe("a device fails at the destination", () => {
  const BEFORE = ["RUNNING->RUNNING_P2P", "STOP->RESUMING", "write", "RESUMING->STOP"];

  it.each(KINDS)("with %s, before the guest is handed over: it stays with its devices", async (kind) => {
    const spec = await startGuest(`arrival-${kind.toLowerCase()}`, {});
    for (const at of BEFORE) {
      exchangeArrival(world, spec, "bad0", [{ at, kind, times: 100 }]);
      await expectDeviceFailed(spec, "destination");
    }
    exchangeArrival(world, spec, "bad0", []);
    await expectMovedWithDevices(world, spec, await migrate(spec), "b");
  });

  const AFTER = [
    { at: "STOP->RUNNING_P2P", kind: "EIO", times: 1, resets: 0 },
    { at: "STOP->RUNNING_P2P", kind: "error-state", times: 1, resets: 1 },
    { at: "RUNNING_P2P->RUNNING", kind: "EIO", times: 1, resets: 0 },
    { at: "RUNNING_P2P->RUNNING", kind: "EIO", times: 5, resets: 1 },
  ];

  it.each(AFTER)("at $at, with $kind $times times, once it was handed over: it runs there", async (fault) => {
    const { resets, ...rest } = fault;
    const spec = await startGuest(`after-${AFTER.indexOf(fault)}`, {});
    exchangeArrival(world, spec, "bad0", [rest]);
    const journey = await migrate(spec);
    const end = await journey.end;
    expect(end).toMatchObject({ status: "completed" });
    const devices = await expectDevicesAt(world, spec, "b");
    expect(devices.get("bad0")!.resets).toBe(resets);
    expect(devices.get("good0")!.resets).toBe(0);
    if (resets > 0) expect(end.note).toContain("only a reset brought device bad0 back");
    else expect(end.note).toBeUndefined();
    await expectMovedWithDevices(world, spec, await migrate(spec, "a"), "a");
  });
});
