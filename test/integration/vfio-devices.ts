/** The simulated VFIO devices of the tests' guests: what they are made of, and what is to be seen of them from outside. */
import { basename, dirname } from "node:path";
import type { BuiltinDevice, BuiltinSpec } from "@godwit/guest";
import { openRegistry } from "@godwit/guest";
import type { MigrationInfo } from "@godwit/protocol";
import { diagnose, type SimulatedDiagnosis } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import { expect } from "vitest";
import { resumePaused } from "../../services/cli/src/client.ts";
import { deviceSockets } from "./guest-process.ts";
import type { Journey } from "./journey.ts";
import { expectMoved, expectStayed } from "./outcome.ts";
import { eventually, MIB, type MigrateOptions, type World } from "./world.ts";

/** A device of a few MiB that works all the time; whatever is said otherwise, holds. */
export const device = (
  name: string,
  options: Partial<BuiltinDevice["options"]> = {},
  arrival: Partial<BuiltinDevice["options"]> = {},
): BuiltinDevice => ({
  options: { name, stateBytes: 3 * MIB, initialBytes: MIB, dirtyBytesPerSecond: MIB, seed: seedOf(name), ...options },
  arrival,
});

/** Devices of different names hold different bytes: one that got another's state shows. */
const seedOf = (name: string): number => [...name].reduce((sum, char) => sum * 31 + char.charCodeAt(0), 7) % 2 ** 32;

export interface SeenDevice {
  readonly node: string;
  readonly device: string;
  /** null: it ended while it was looked at. */
  readonly diagnosis: SimulatedDiagnosis | null;
}

/** Every device process of this guest, wherever it is. */
export const devicesOf = (world: World, guest: string): Promise<ReadonlyArray<SeenDevice>> => {
  const sockets = deviceSockets(dirname(world.cluster.settingsOf("a").guestDirectory));
  const ofGuest = sockets.filter((socket) => basename(dirname(socket)) === `${guest}.vfio`);
  return Promise.all(
    ofGuest.map(async (socket) => {
      const name = basename(socket, ".device.sock");
      const diagnosis = await world.run(Effect.orElseSucceed(diagnose({ name, socket }), () => null));
      return { node: basename(dirname(dirname(socket))), device: name, diagnosis };
    }),
  );
};

/** Each of the guest's devices is there once, at `node`, and RUNNING; how they stand then, by name. */
export const expectDevicesAt = async (
  world: World,
  { name, devices = [] }: BuiltinSpec,
  node: string,
): Promise<ReadonlyMap<string, SimulatedDiagnosis>> => {
  const wanted = devices.map((spec) => `${spec.name} RUNNING at ${node}`).sort();
  let found: ReadonlyArray<SeenDevice> = [];
  const shown = () => found.map((seen) => `${seen.device} ${seen.diagnosis?.state} at ${seen.node}`).sort();
  await eventually(`the devices of guest ${name} are RUNNING at node ${node}, and nowhere else`, async () => {
    found = await devicesOf(world, name);
    return shown().join() === wanted.join();
  }).catch((error) => {
    throw new Error(`${error.message}; found: ${shown().join(", ")}`, { cause: error });
  });
  return new Map(found.map((seen) => [seen.device, seen.diagnosis!]));
};

/** Lets the guest go on from pre-switchover, with its devices in STOP_COPY: what they held then, by name. */
const letSwitch = async (
  world: World,
  journey: Journey,
  guest: string,
  beforeSwitch: (journey: Journey) => Promise<unknown> = async () => {},
): Promise<ReadonlyMap<string, string>> => {
  await journey.until((info) => info.status === "pre-switchover");
  await beforeSwitch(journey);
  const stopped = (await devicesOf(world, guest)).filter(({ diagnosis }) => diagnosis?.state === "STOP_COPY");
  await world.run(resumePaused({ migration: journey.id }));
  return new Map(stopped.map((seen) => [seen.device, seen.diagnosis!.saved!.digest]));
};

/** Migrates a guest, and checks that each device loaded at the destination what it held when it was saved. */
export const moveWithDevices = async (
  world: World,
  spec: BuiltinSpec,
  node: string,
  { parameters = {}, capabilities = {} }: MigrateOptions = {},
  /** Before the guest is handed over, everything that can be moved while it runs has been. */
  beforeSwitch?: (journey: Journey) => Promise<unknown>,
): Promise<{ readonly end: MigrationInfo; readonly devices: ReadonlyMap<string, SimulatedDiagnosis> }> => {
  // How fast a busy machine moves them is not what is asked here.
  const options = {
    parameters: { "downtime-limit": 5000, ...parameters },
    capabilities: { ...capabilities, "pause-before-switchover": true },
  };
  const journey = await world.migrate(spec.name, node, options);
  const saved = await letSwitch(world, journey, spec.name, beforeSwitch);
  return arrive(world, spec, journey, node, saved);
};

const arrive = async (
  world: World,
  spec: BuiltinSpec,
  journey: Journey,
  node: string,
  saved: ReadonlyMap<string, string>,
) => {
  const end = await expectMoved(world, journey, node);
  const devices = await expectDevicesAt(world, spec, node);
  const loaded = new Map([...devices].map(([name, { loaded }]) => [name, loaded?.digest]));
  expect(loaded).toEqual(new Map((spec.devices ?? []).map(({ name }) => [name, saved.get(name)])));
  for (const { resets } of devices.values()) expect(resets).toBe(0);
  return { end, devices };
};

/** The guest moved, and so did its devices, each with a state loaded into it. */
export const expectMovedWithDevices = async (world: World, spec: BuiltinSpec, journey: Journey, node: string) => {
  const end = await expectMoved(world, journey, node);
  const devices = await expectDevicesAt(world, spec, node);
  // Before it is given a state a device may be reset; one that runs without its state would be told of.
  for (const [name, { loaded }] of devices) expect(loaded, name).not.toBeNull();
  expect(end.note).toBeUndefined();
  return { end, devices };
};

/** What stands in for putting another card into the destination: the device that starts there from now on has other faults, or none. */
export const exchangeArrival = (
  world: World,
  spec: BuiltinSpec,
  device: string,
  faults: ReadonlyArray<object>,
  node = "a",
): void => {
  const registered = openRegistry(world.cluster.settingsOf(node).runtimeDirectory).find(spec.name) as BuiltinSpec;
  const devices = (registered.devices ?? []).map((entry) =>
    entry.name === device && entry.provider === "simulated"
      ? { ...entry, model: JSON.stringify({ ...JSON.parse(entry.model!), faults }) }
      : entry,
  );
  world.register(node, { ...registered, devices });
};

/** The migration ended without the guest having moved, and its devices are where it is. */
export const expectStayedWithDevices = async (
  world: World,
  spec: BuiltinSpec,
  journey: Journey,
): Promise<MigrationInfo> => {
  const end = await journey.end;
  expect(end.status, world.log().slice(-4000)).not.toBe("completed");
  await expectStayed(world, spec.name, "a");
  await expectDevicesAt(world, spec, "a");
  return end;
};
