// The contract of a device over its socket. Its processes are started once: a reset makes them fresh again.
import { mkdtempSync, rmSync } from "node:fs";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe } from "vitest";
import type { DeviceFacts } from "../conformance/facts.ts";
import { deviceConformance } from "../device.conformance.ts";
import type { VfioDevice } from "../device.ts";
import type { SimulatedDevice } from "./in-process.ts";
import { type StartedDevice, startSimulated } from "./launch.ts";
import { openSimulated } from "./open.ts";
import type { SimulatedOptions } from "./spec.ts";

const FACTS: DeviceFacts = {
  features: { stopCopy: true, p2p: true, preCopy: true },
  config: true,
  dirtyLogging: false,
  precopyInfo: true,
  stopCopyBytes: true,
  loads: true,
};

const isEqual = (source: VfioDevice, destination: VfioDevice) =>
  Effect.gen(function* () {
    const { saved } = yield* (source as SimulatedDevice).diagnosis;
    const { loaded } = yield* (destination as SimulatedDevice).diagnosis;
    return saved !== null && saved.digest === loaded?.digest;
  });

const conformanceOf = (title: string, facts: DeviceFacts, options: Partial<SimulatedOptions>): void => {
  describe(title, () => {
    let directory = "";
    let devices: ReadonlyArray<StartedDevice> = [];
    beforeAll(async () => {
      directory = mkdtempSync("/dev/shm/godwit-served-");
      const start = (role: "boot" | "incoming") =>
        startSimulated({ name: role, role, stateBytes: 50_000, initialBytes: 3000, ...options }, directory);
      devices = await Effect.runPromise(Effect.all([start("boot"), start("incoming")], { concurrency: 2 }));
    });
    afterAll(async () => {
      for (const device of devices) await Effect.runPromise(device.stop);
      rmSync(directory, { recursive: true });
    });
    const makePair = Effect.gen(function* () {
      const [source, destination] = devices.map(({ spec }) => openSimulated(spec));
      if (source === undefined || destination === undefined) return yield* Effect.die("no devices");
      for (const open of [source, destination]) yield* Effect.scoped(Effect.flatMap(open, ({ reset }) => reset));
      return { source, destination, isEqual };
    });
    deviceConformance("simulated, in a process of its own", facts, makePair);
  });
};

conformanceOf("with all features", FACTS, {});
conformanceOf(
  "with none, and DMA",
  { ...FACTS, features: { stopCopy: true, p2p: false, preCopy: false }, dirtyLogging: true },
  {
    p2p: false,
    preCopy: false,
    dma: { path: "/dev/null", offsetBytes: 0, lengthBytes: 2 ** 20, bytesPerSecond: 0 },
  },
);
