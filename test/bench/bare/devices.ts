/** The yardstick of device state: the same devices at both ends, and nothing but plain nats.js between them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Fabric } from "@godwit/fabric";
import * as Effect from "effect/Effect";
import { startBare } from "./process.ts";
import { DEVICES, doneOf, goOf } from "./subjects.ts";

const NOTHING = new Uint8Array(0);

export interface BareDevicesOptions {
  readonly url: string;
  readonly fabric: Fabric["Service"];
  readonly devices: number;
  readonly stateBytes: number;
}

/** Moves the state of so many devices, each from a process of its own to one that has them all: seconds from the start signal until the last byte is written. */
export const moveBareDevices = ({ url, fabric, devices, stateBytes }: BareDevicesOptions) =>
  Effect.scoped(
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "godwit-bench-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })),
      );
      yield* startBare("./device-subscriber.ts", [url, String(devices), String(stateBytes), directory]);
      for (let number = 0; number < devices; number++)
        yield* startBare("./device-publisher.ts", [url, String(number), String(stateBytes), directory]);
      const dones = yield* fabric.subscribe(doneOf(DEVICES, "*"), { capacity: devices });
      const startedMs = performance.now();
      fabric.publish(goOf(DEVICES), NOTHING);
      for (let missing = devices; missing > 0; ) missing -= (yield* dones.takeAll).length;
      return (performance.now() - startedMs) / 1000;
    }),
  );
