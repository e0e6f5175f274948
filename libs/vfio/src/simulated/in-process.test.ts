import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import { TestClock } from "effect/testing";
import { plugSimulated } from "./in-process.ts";
import { parseSimulatedSpec, type SimulatedOptions } from "./spec.ts";

const plug = (options: Partial<SimulatedOptions>) =>
  Effect.flatMap(parseSimulatedSpec({ name: "nic", stateBytes: 100_000, ...options }), plugSimulated);

describe("a simulated device in process", () => {
  it.effect("takes its time, and answers nothing meanwhile", () =>
    Effect.gen(function* () {
      const { open } = yield* plug({ arcLatencyMs: { "RUNNING_P2P->STOP": 100 } });
      const device = yield* open;
      const set = yield* Effect.forkChild(device.setState("STOP"), { startImmediately: true });
      const state = yield* Effect.forkChild(device.state, { startImmediately: true });
      yield* TestClock.adjust(99);
      assert.isUndefined(state.pollUnsafe());
      yield* TestClock.adjust(1);
      yield* Fiber.join(set);
      assert.strictEqual(yield* Fiber.join(state), "STOP");
    }),
  );

  it.effect("lets a request that hangs hang, and answers the next", () =>
    Effect.gen(function* () {
      const { open } = yield* plug({ faults: [{ at: "read", kind: "hang" }] });
      const device = yield* open;
      yield* device.setState("STOP_COPY");
      const read = yield* Effect.forkChild(device.read(Buffer.alloc(10)), { startImmediately: true });
      assert.strictEqual(yield* device.read(Buffer.alloc(10)), 10);
      yield* TestClock.adjust("1 hour");
      assert.isUndefined(read.pollUnsafe());
    }),
  );

  it.effect("belongs to who opened it last", () =>
    Effect.gen(function* () {
      const { open } = yield* plug({});
      const first = yield* open;
      yield* first.setState("STOP");
      const second = yield* open;
      assert.deepInclude(yield* Effect.flip(first.state), { device: "nic", errno: "EPIPE" });
      assert.strictEqual(yield* second.state, "STOP");
    }),
  );

  it.effect("names in its errors what was asked, and what the device gave", () =>
    Effect.gen(function* () {
      const device = yield* (yield* plug({ faults: [{ at: "STOP->STOP_COPY", kind: "EBUSY" }] })).open;
      const error = yield* Effect.flip(device.setState("STOP_COPY"));
      assert.deepInclude(error, { _tag: "DeviceError", device: "nic", operation: "set STOP_COPY", errno: "EBUSY" });
      assert.strictEqual(yield* device.state, "STOP");
    }),
  );

  it.effect("writes into guest memory while nobody asks it anything", () =>
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync("/dev/shm/godwit-shell-")),
        (path) => Effect.sync(() => rmSync(path, { recursive: true })),
      );
      const path = join(directory, "ram");
      writeFileSync(path, "");
      truncateSync(path, 2 ** 20);
      yield* plug({ dma: { path, offsetBytes: 0, lengthBytes: 2 ** 20, bytesPerSecond: 409_600 } });
      yield* TestClock.adjust("1 second");
      const ram = readFileSync(path);
      const pages = Array.from({ length: 256 }, (_, page) => ram.readUInt32LE(page * 4096)).filter(
        (head) => head !== 0,
      ).length;
      assert.isAtLeast(pages, 95);
      assert.isAtMost(pages, 100);
    }),
  );
});
