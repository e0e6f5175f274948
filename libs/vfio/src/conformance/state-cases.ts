/** Which state a device is in, after whatever was asked of it. */
import assert from "node:assert/strict";
import * as Effect from "effect/Effect";
import type { DeviceError, VfioDevice } from "../device.ts";
import { DEVICE_STATES, type DeviceState, isSaving, pathOf, statesOf } from "../state-machine.ts";
import type { ConformanceCase, DeviceFacts } from "./facts.ts";
import { captured, go, readPass, refusal, writeAll } from "./stream.ts";

const isAvoided = ({ avoids = [] }: DeviceFacts, from: DeviceState, to: DeviceState): boolean =>
  avoids.some((pair) => pair.from === from && pair.to === to);

/** States that a device can be put in, one after the other, from RUNNING and back to it. */
const usableStates = (facts: DeviceFacts): ReadonlyArray<DeviceState> =>
  statesOf(facts.features).filter(
    (state) => state !== "ERROR" && !isAvoided(facts, "RUNNING", state) && (state !== "RESUMING" || canLeave(facts)),
  );
/** Whether there is a way out of a RESUMING that has got no stream. */
const canLeave = ({ refusesIncomplete = true, resets = true }: DeviceFacts): boolean => resets || !refusesIncomplete;

/** To RUNNING, whatever it takes. */
const goHome = (device: VfioDevice, facts: DeviceFacts): Effect.Effect<void, DeviceError> =>
  Effect.gen(function* () {
    if (facts.resets !== false) yield* device.reset;
    else yield* device.setState("RUNNING");
    assert.equal(yield* device.state, "RUNNING");
  });

/** Puts the device in `from`; in RESUMING with a whole stream, so that it can go on from there. */
const prepare = (device: VfioDevice, facts: DeviceFacts, from: DeviceState, stream: Buffer) =>
  Effect.gen(function* () {
    yield* go(device, from);
    if (from === "RESUMING") yield* writeAll(device, facts, stream);
  });

const trySet = (device: VfioDevice, facts: DeviceFacts, from: DeviceState, to: DeviceState) =>
  Effect.gen(function* () {
    const set = `SET ${from} -> ${to}`;
    const path = pathOf(from, to, facts.features);
    if (path._tag === "Path") {
      yield* device.setState(to).pipe(Effect.mapError((error) => new Error(`${set}: ${error.message}`)));
      assert.equal(yield* device.state, to, set);
    } else {
      assert.equal((yield* refusal(set, device.setState(to))).errno, path.errno, set);
      assert.equal(yield* device.state, from, `${set} was refused, and must leave it there`);
    }
  });

const everyPair = (facts: DeviceFacts): ReadonlyArray<ConformanceCase> =>
  usableStates(facts)
    .filter((from) => from !== "RESUMING" || facts.loads)
    .map((from) => ({
      name: `from ${from}, a SET ends where it shall or leaves the device where it is`,
      run: (pair) =>
        Effect.gen(function* () {
          const stream = yield* Effect.scoped(Effect.flatMap(pair.source, (source) => captured(source, facts)));
          const device = yield* pair.destination;
          for (const to of DEVICE_STATES) {
            if (isAvoided(facts, from, to)) continue;
            yield* goHome(device, facts);
            yield* prepare(device, facts, from, stream);
            yield* trySet(device, facts, from, to);
            // Without a reset, only a whole stream leads out of RESUMING.
            const isStuck = (yield* device.state) === "RESUMING" && !canLeave(facts);
            if (isStuck && from !== "RESUMING") yield* writeAll(device, facts, stream);
          }
        }),
    }));

const startsRunning = (facts: DeviceFacts): ConformanceCase => ({
  name: "is RUNNING at first, has the features it shall have, and no stream",
  run: ({ source }) =>
    Effect.gen(function* () {
      const device = yield* source;
      assert.equal(yield* device.state, "RUNNING");
      assert.deepEqual(device.features, facts.features);
      assert.equal(device.dmaLogging !== null, facts.dirtyLogging, "dmaLogging");
      yield* refusal("a read in RUNNING", device.read(Buffer.alloc(facts.readBytes ?? 64)));
      yield* refusal("a write in RUNNING", device.write(Buffer.alloc(64)));
      assert.equal(yield* device.state, "RUNNING");
    }),
});

const cancels = (facts: DeviceFacts): ReadonlyArray<ConformanceCase> =>
  usableStates(facts)
    .filter((state) => isSaving(state) && !isAvoided(facts, state, "RUNNING"))
    .map((state) => ({
      name: `is cancelled in ${state}, within its stream, and can be saved again`,
      run: (pair) =>
        Effect.gen(function* () {
          const device = yield* pair.source;
          const whole = yield* captured(device, facts);
          yield* go(device, state);
          yield* device.read(Buffer.alloc(facts.readBytes ?? 10));
          yield* go(device, "RUNNING");
          yield* refusal("a read after the cancel", device.read(Buffer.alloc(facts.readBytes ?? 64)));
          assert.equal((yield* captured(device, facts)).length, whole.length, "the next stream has another length");
        }),
    }));

const resets = (facts: DeviceFacts): ReadonlyArray<ConformanceCase> =>
  facts.resets === false
    ? []
    : usableStates(facts).map((state) => ({
        name: `is reset in ${state}: RUNNING, and its stream is gone`,
        run: (pair) =>
          Effect.gen(function* () {
            const device = yield* pair.destination;
            yield* go(device, state);
            yield* device.reset;
            assert.equal(yield* device.state, "RUNNING");
            yield* refusal("a read after the reset", device.read(Buffer.alloc(facts.readBytes ?? 64)));
            yield* refusal("a write after the reset", device.write(Buffer.alloc(64)));
          }),
      }));

const reopening = (facts: DeviceFacts): ReadonlyArray<ConformanceCase> =>
  facts.keepsStateWhenClosed === false
    ? []
    : usableStates(facts).map((state) => ({
        name: `is closed in ${state} and found there when it is opened again`,
        run: (pair) =>
          Effect.gen(function* () {
            yield* Effect.scoped(Effect.flatMap(pair.destination, (device) => go(device, state)));
            const device = yield* pair.destination;
            assert.equal(yield* device.state, state);
            yield* goHome(device, facts);
          }),
      }));

const samePlace = (facts: DeviceFacts): ConformanceCase => ({
  name: "goes on with its stream when it is set to the state it is in",
  run: (pair) =>
    Effect.gen(function* () {
      const device = yield* pair.source;
      const whole = yield* captured(device, facts);
      yield* go(device, "STOP_COPY");
      const head = Buffer.alloc(facts.readBytes ?? 10);
      const bytes = yield* device.read(head);
      yield* go(device, "STOP_COPY");
      const rest = yield* readPass(device, facts);
      assert.equal(bytes + rest.length, whole.length);
    }),
});

/** State by state. */
export const stateCases = (facts: DeviceFacts): ReadonlyArray<ConformanceCase> => [
  startsRunning(facts),
  ...everyPair(facts),
  samePlace(facts),
  ...cancels(facts),
  ...resets(facts),
  ...reopening(facts),
];
