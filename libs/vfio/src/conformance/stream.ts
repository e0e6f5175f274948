/** Reading and writing whole streams, in segments of any size. */
import assert from "node:assert/strict";
import * as Effect from "effect/Effect";
import type { DeviceError, VfioDevice } from "../device.ts";
import type { DeviceState } from "../state-machine.ts";
import type { DeviceFacts, DevicePair } from "./facts.ts";

/** Longer streams would make the suite slow, bytes. */
const STREAM_BYTES_MAX = 64 * 2 ** 20;

/** Sizes of segments, bytes: endless, and the same for the same seed. */
export type Segments = () => number;

/** Always the same size. */
export const even =
  (bytes: number): Segments =>
  () =>
    bytes;

/** Sizes from 1 to about `bytes`, small ones as often as large ones (xorshift32). */
export const uneven = (seed: number, bytes: number): Segments => {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return Math.max(1, (state >>> 0) % (1 << ((state >>> 0) % (Math.floor(Math.log2(bytes)) + 1))));
  };
};

/** Reads until the device has nothing (more): one pass in PRE_COPY, the rest of the stream in STOP_COPY. */
export const readPass = (
  device: VfioDevice,
  facts: DeviceFacts,
  segments: Segments = even(65_536),
): Effect.Effect<Buffer, DeviceError> =>
  Effect.gen(function* () {
    const parts: Array<Buffer> = [];
    let total = 0;
    while (total <= STREAM_BYTES_MAX) {
      const into = Buffer.alloc(facts.readBytes ?? segments());
      const bytes = yield* device.read(into);
      assert.ok(bytes <= into.length, `read gave ${bytes} bytes into ${into.length}`);
      if (bytes === 0) break;
      total += bytes;
      parts.push(into.subarray(0, bytes));
    }
    assert.ok(total <= STREAM_BYTES_MAX, "the stream does not end");
    return Buffer.concat(parts);
  });

/** Writes all of it. */
export const writeAll = (
  device: VfioDevice,
  facts: DeviceFacts,
  bytes: Uint8Array,
  segments: Segments = even(65_536),
): Effect.Effect<void, DeviceError> =>
  Effect.gen(function* () {
    for (let at = 0; at < bytes.length; ) {
      const end = Math.min(bytes.length, at + Math.min(segments(), facts.writeBytesMax ?? Number.POSITIVE_INFINITY));
      yield* device.write(bytes.subarray(at, end));
      at = end;
    }
  });

/** The source's whole stream, taken at once; the source is RUNNING before and after. */
export const captured = (source: VfioDevice, facts: DeviceFacts): Effect.Effect<Buffer, DeviceError> =>
  Effect.gen(function* () {
    yield* source.setState("STOP_COPY");
    const bytes = yield* readPass(source, facts);
    assert.ok(bytes.length > 0, "the source gives an empty stream");
    yield* source.setState("RUNNING");
    return bytes;
  });

/** Does a SET, which must end where it shall. */
export const go = (device: VfioDevice, to: DeviceState): Effect.Effect<void, DeviceError> =>
  Effect.gen(function* () {
    yield* device.setState(to);
    assert.equal(yield* device.state, to);
  });

/** The failure of what must fail. */
export const refusal = (what: string, effect: Effect.Effect<unknown, DeviceError>): Effect.Effect<DeviceError> =>
  effect.pipe(
    Effect.andThen(Effect.sync((): never => assert.fail(`${what} was not refused`))),
    Effect.flip,
  ) as Effect.Effect<DeviceError>;

/** Loads a whole stream and lets the destination run; it must then have the source's content. */
export const loadAndCompare = (
  pair: DevicePair,
  devices: { readonly source: VfioDevice; readonly destination: VfioDevice },
  facts: DeviceFacts,
  stream: Uint8Array,
  segments?: Segments,
): Effect.Effect<void, unknown> =>
  Effect.gen(function* () {
    const { source, destination } = devices;
    yield* go(destination, "RESUMING");
    yield* writeAll(destination, facts, stream, segments);
    yield* go(destination, "RUNNING");
    if (pair.isEqual !== undefined) {
      assert.ok(yield* pair.isEqual(source, destination), "the destination's content is not the source's");
      return;
    }
    assert.deepEqual(yield* captured(destination, facts), Buffer.from(stream), "the destination gives another stream");
  });
