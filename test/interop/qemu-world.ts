/** A guest in a real QEMU at node a, and a QEMU at node b that waits for it, under real actors. */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { launchTestQemu, openRegistry, type TestQemu, type TestQemuOptions } from "@godwit/guest";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
// The monitor itself is not part of what the library offers: nobody but its driver speaks QMP.
import { connectQmp } from "../../libs/guest/src/qemu/qmp.ts";
import type { World } from "../integration/world.ts";
import { MEMORY_BYTES } from "./qemu-pair.ts";

const NODES = { source: "a", destination: "b" } as const;

/** Starts one side of guest `name` and registers it at its node. */
export const startQemuAt = async (
  world: World,
  name: string,
  role: "source" | "destination",
  options: Partial<TestQemuOptions> = {},
): Promise<TestQemu> => {
  const { guestDirectory, runtimeDirectory } = world.cluster.settingsOf(NODES[role]);
  mkdirSync(guestDirectory, { recursive: true });
  // Of an earlier one of its name.
  rmSync(pidFileOf(world, name, role), { force: true });
  const qemu = await world.run(
    launchTestQemu({
      name,
      directory: world.directory,
      ramDirectory: guestDirectory,
      memoryBytes: MEMORY_BYTES,
      role,
      ...options,
    }),
  );
  openRegistry(runtimeDirectory).put(qemu.spec);
  return qemu;
};

/** Both sides, the guest having written all its memory once. */
export const startQemuPair = async (
  world: World,
  name: string,
  options: Partial<TestQemuOptions> = {},
): Promise<{ readonly source: TestQemu; readonly destination: TestQemu }> => {
  const source = await startQemuAt(world, name, "source", options);
  const destination = await startQemuAt(world, name, "destination");
  await world.run(source.awaitSerial((text) => text.includes("B")));
  return { source, destination };
};

const pidFileOf = (world: World, name: string, role: string): string => join(world.directory, `${name}-${role}.pid`);

export const pidOfQemu = (world: World, name: string, role: "source" | "destination"): number =>
  Number(readFileSync(pidFileOf(world, name, role), "utf8"));

/** What an operator does at the monitor. One that ends QEMU may end the connection before its answer. */
export const atMonitor = (world: World, qemu: TestQemu, command: string): Promise<void> =>
  world.run(
    Effect.scoped(Effect.flatMap(connectQmp(qemu.spec.qmp), (qmp) => qmp.execute(command, Schema.Unknown))).pipe(
      Effect.asVoid,
      Effect.catch((error) => (error.kind === "closed" ? Effect.void : Effect.fail(error))),
    ),
  );
