/** What a device's state looks like on its way. */
import assert from "node:assert/strict";
import * as Effect from "effect/Effect";
import type { ConformanceCase, DeviceFacts } from "./facts.ts";
import { captured, even, go, loadAndCompare, readPass, refusal, type Segments, uneven, writeAll } from "./stream.ts";

/** How a stream is cut when it is read, and again when it is written: both by chance. */
const CHANCES = 12;
const CUTS: ReadonlyArray<readonly [string, Segments, Segments]> = [
  ["read in small pieces, written in large ones", even(97), even(1 << 20)],
  ["read in large pieces, written in small ones", even(1 << 20), even(97)],
  ...Array.from(
    { length: CHANCES },
    (_, seed) => [`cut by chance ${seed + 1}`, uneven(seed * 2 + 1, 1 << 17), uneven(seed * 2 + 2, 1 << 17)] as const,
  ),
];

const anySegmentation = (facts: DeviceFacts): ConformanceCase => ({
  name: "moves a state whole, however its stream is cut and joined",
  run: (pair) =>
    Effect.gen(function* () {
      const devices = { source: yield* pair.source, destination: yield* pair.destination };
      for (const [cut, reading, writing] of CUTS) {
        yield* Effect.gen(function* () {
          yield* go(devices.source, "STOP_COPY");
          const stream = yield* readPass(devices.source, facts, reading);
          yield* loadAndCompare(pair, devices, facts, stream, writing);
          yield* go(devices.source, "RUNNING");
        }).pipe(Effect.mapError((error) => new Error(`${cut}: ${error}`)));
      }
    }),
});

const endsOnce = (facts: DeviceFacts): ConformanceCase => ({
  name: "gives 0 at the end of its stream, again and again",
  run: ({ source }) =>
    Effect.gen(function* () {
      const device = yield* source;
      yield* go(device, "STOP_COPY");
      yield* readPass(device, facts);
      for (let i = 0; i < 3; i++) assert.equal(yield* device.read(Buffer.alloc(facts.readBytes ?? 64)), 0);
      assert.equal(yield* device.state, "STOP_COPY");
    }),
});

const sizeIsTold = (facts: DeviceFacts): ConformanceCase => ({
  name: facts.stopCopyBytes ? "tells about how much STOP_COPY will give" : "says that it cannot tell a size",
  run: ({ source }) =>
    Effect.gen(function* () {
      const device = yield* source;
      const told = yield* device.stopCopyBytes;
      const stream = yield* captured(device, facts);
      if (!facts.stopCopyBytes) return assert.equal(told, null);
      assert.ok(told !== null && told >= stream.length / 2 && told <= stream.length * 2, `${told} of ${stream.length}`);
    }),
});

const precopyIsOneStream = (facts: DeviceFacts): ConformanceCase => ({
  name: "gives passes in PRE_COPY, and goes on in STOP_COPY in the same stream",
  run: (pair) =>
    Effect.gen(function* () {
      const source = yield* pair.source;
      yield* go(source, "PRE_COPY");
      const passes = [yield* readPass(source, facts)];
      for (let pass = 0; pass < 2 && pair.touch !== undefined; pass++) {
        yield* pair.touch(source);
        passes.push(yield* readPass(source, facts));
        assert.notEqual(passes.at(-1)?.length, 0, "it changed and has nothing to give");
      }
      yield* pair.touch?.(source) ?? Effect.void;
      yield* go(source, "STOP_COPY");
      passes.push(yield* readPass(source, facts));
      if (!facts.loads) return;
      const devices = { source, destination: yield* pair.destination };
      if (pair.isEqual !== undefined) return yield* loadAndCompare(pair, devices, facts, Buffer.concat(passes));
      yield* go(devices.destination, "RESUMING");
      yield* writeAll(devices.destination, facts, Buffer.concat(passes));
      yield* go(devices.destination, "RUNNING");
    }),
});

const unreadPrecopy = (facts: DeviceFacts): ConformanceCase => ({
  name: "gives in STOP_COPY what was not read in PRE_COPY",
  run: (pair) =>
    Effect.gen(function* () {
      const devices = { source: yield* pair.source, destination: yield* pair.destination };
      for (const read of [false, true]) {
        yield* go(devices.source, "PRE_COPY");
        const head = Buffer.alloc(facts.readBytes ?? 10);
        const bytes = read ? yield* devices.source.read(head) : 0;
        yield* go(devices.source, "STOP_COPY");
        const rest = yield* readPass(devices.source, facts);
        yield* loadAndCompare(pair, devices, facts, Buffer.concat([head.subarray(0, bytes), rest]));
        yield* go(devices.source, "RUNNING");
      }
    }),
});

const precopyInfoFalls = (facts: DeviceFacts): ConformanceCase => ({
  name: "tells in PRE_COPY what is left to read: initial data first, and nothing at the end of a pass",
  run: ({ source }) =>
    Effect.gen(function* () {
      const device = yield* source;
      yield* refusal("precopy info in RUNNING", device.precopyInfo);
      yield* go(device, "PRE_COPY");
      let before = yield* device.precopyInfo;
      assert.ok(before !== null && before.initialBytes > 0, "there is no initial data");
      for (let read = -1; read !== 0; ) {
        read = yield* device.read(Buffer.alloc(facts.readBytes ?? Math.ceil(Math.max(1024, before.initialBytes / 3))));
        const after = yield* device.precopyInfo;
        assert.ok(after !== null && after.initialBytes <= before.initialBytes, "initial bytes have grown");
        before = after;
      }
      assert.deepEqual(before, { initialBytes: 0, dirtyBytes: 0 }, "it has nothing to read, and says it has");
      yield* go(device, "STOP_COPY");
      yield* refusal("precopy info in STOP_COPY", device.precopyInfo);
    }),
});

const incompleteIsRefused = (facts: DeviceFacts): ConformanceCase => ({
  name: "stays RESUMING with a part of a stream, and takes the rest then",
  run: (pair) =>
    Effect.gen(function* () {
      const devices = { source: yield* pair.source, destination: yield* pair.destination };
      const { destination } = devices;
      const stream = yield* captured(devices.source, facts);
      yield* go(destination, "RESUMING");
      let at = 0;
      for (const end of [0, 1, stream.length >> 1, stream.length - 1]) {
        yield* writeAll(destination, facts, stream.subarray(at, end));
        at = Math.max(at, end);
        for (const to of ["STOP", "RUNNING"] as const) {
          const { errno } = yield* refusal(`${to} after ${at} of ${stream.length} bytes`, destination.setState(to));
          assert.equal(errno, "EINVAL");
          assert.equal(yield* destination.state, "RESUMING");
        }
      }
      yield* writeAll(destination, facts, stream.subarray(at));
      yield* go(destination, "RUNNING");
    }),
});

const damageIsNoticed = (facts: DeviceFacts): ConformanceCase => ({
  name: "runs with no damaged stream: a byte changed, lost or doubled",
  run: (pair) =>
    Effect.gen(function* () {
      const devices = { source: yield* pair.source, destination: yield* pair.destination };
      const { destination } = devices;
      const stream = yield* captured(devices.source, facts);
      const places = [0, 0.1, 0.5, 0.77, 0.999].map((part) => Math.floor(stream.length * part));
      for (const place of places) {
        const changed = Buffer.from(stream);
        changed[place]! ^= 0x10;
        const lost = Buffer.concat([stream.subarray(0, place), stream.subarray(place + 1)]);
        const doubled = Buffer.concat([stream.subarray(0, place + 1), stream.subarray(place)]);
        for (const damaged of [changed, lost, doubled]) {
          yield* go(destination, "RESUMING");
          const loading = Effect.andThen(writeAll(destination, facts, damaged), destination.setState("RUNNING"));
          yield* refusal(`damage at ${place} of ${stream.length}`, loading);
          assert.equal(yield* destination.state, "RESUMING");
          yield* destination.reset;
        }
      }
    }),
});

const configMoves = (facts: DeviceFacts): ConformanceCase => ({
  name: facts.config ? "moves its configuration space" : "has no configuration space",
  run: (pair) =>
    Effect.gen(function* () {
      const source = yield* pair.source;
      const config = yield* source.readConfig;
      if (!facts.config) return assert.equal(config.length, 0);
      const destination = yield* pair.destination;
      yield* destination.writeConfig(config);
      assert.deepEqual(Buffer.from(yield* destination.readConfig), Buffer.from(config));
    }),
});

const dmaLogs = (_facts: DeviceFacts): ConformanceCase => ({
  name: "logs DMA between start and stop",
  run: (pair) =>
    Effect.gen(function* () {
      const logging = (yield* pair.source).dmaLogging;
      assert.ok(logging !== null);
      const range = { iova: 0, length: 4096 * 100 };
      yield* logging.start(4096, [range]);
      const bitmap = yield* logging.report(range, 4096);
      assert.ok(bitmap.length === 13 || bitmap.length === 16, `${bitmap.length} bytes for 100 pages`);
      yield* logging.stop;
    }),
});

/** Stream by stream. */
export const streamCases = (facts: DeviceFacts): ReadonlyArray<ConformanceCase> => [
  endsOnce(facts),
  sizeIsTold(facts),
  configMoves(facts),
  ...(facts.loads ? [anySegmentation(facts)] : []),
  ...(facts.features.preCopy ? [precopyIsOneStream(facts)] : []),
  ...(facts.features.preCopy && facts.loads ? [unreadPrecopy(facts)] : []),
  ...(facts.features.preCopy && facts.precopyInfo ? [precopyInfoFalls(facts)] : []),
  ...(facts.loads && facts.refusesIncomplete !== false ? [incompleteIsRefused(facts)] : []),
  ...(facts.loads && facts.noticesDamage !== false && facts.resets !== false ? [damageIsNoticed(facts)] : []),
  ...(facts.dirtyLogging ? [dmaLogs(facts)] : []),
];
