import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import type { DeviceState, VfioDevice } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import { clientCapabilities } from "../../libs/vfio/src/vfio-user/capabilities.ts";
import { connectVfioUser } from "../../libs/vfio/src/vfio-user/connection.ts";
import { makeDmaLogging, probeDmaLogging } from "../../libs/vfio/src/vfio-user/dma-logging.ts";
import { scratch } from "./qemu-pair.ts";
import {
  endingOf,
  openSample,
  readRegion,
  regionBytes,
  startSample,
  whyNoSamples,
  writeRegion,
} from "./vfio-user-samples.ts";

const missing = whyNoSamples();
const suite = missing === "" ? describe : describe.skip;
const because = missing === "" ? "" : ` (skipped: ${missing})`;

const gpio = Effect.flatMap(scratch, (directory) => startSample("gpio-pci-idio-16", join(directory, "gpio")));
/** The only read that the gpio sample stands: it asserts that 64 bytes were asked for. */
const GPIO_STREAM_BYTES = 64;
const GPIO_BAR = 2;

/** Everything a device gives until it says 0, read in pieces of `pieceBytes`. */
const drain = (device: VfioDevice, pieceBytes: number) =>
  Effect.gen(function* () {
    const pieces: Uint8Array[] = [];
    for (;;) {
      const piece = new Uint8Array(pieceBytes);
      const count = yield* device.read(piece);
      if (count === 0) return new Uint8Array(Buffer.concat(pieces));
      pieces.push(piece.subarray(0, count));
    }
  });

suite(`libvfio-user's gpio-pci-idio-16${because}`, () => {
  it.live("opens with what it has: STOP_COPY and PRE_COPY, no P2P, no sizes, its configuration space", () =>
    Effect.gen(function* () {
      const { device } = yield* openSample(yield* gpio);
      assert.deepStrictEqual(device.features, { stopCopy: true, p2p: false, preCopy: true });
      assert.strictEqual(yield* device.state, "RUNNING");
      assert.isNull(yield* device.precopyInfo);
      assert.isNull(yield* device.stopCopyBytes);
      assert.isNull(device.dmaLogging);
      const config = yield* device.readConfig;
      assert.strictEqual(config.length, 256);
      assert.deepStrictEqual([...config.subarray(0, 4)], [0x4f, 0x49, 0xc8, 0x0d]);
    }),
  );

  const states: ReadonlyArray<DeviceState> = ["STOP", "RUNNING", "STOP_COPY", "RESUMING", "PRE_COPY"];
  it.live("goes from each state to each other in one SET, save from STOP_COPY to PRE_COPY", () =>
    Effect.gen(function* () {
      const { device } = yield* openSample(yield* gpio);
      for (const from of states) {
        for (const to of states) {
          yield* device.setState("RUNNING");
          yield* device.setState(from);
          if (from === "STOP_COPY" && to === "PRE_COPY") {
            assert.strictEqual((yield* Effect.flip(device.setState(to))).errno, "EINVAL");
            assert.strictEqual(yield* device.state, from);
          } else {
            yield* device.setState(to);
            assert.strictEqual(yield* device.state, to);
          }
        }
      }
      for (const none of ["ERROR", "RUNNING_P2P", "PRE_COPY_P2P"] as const) {
        const before = yield* device.state;
        assert.deepInclude(yield* Effect.flip(device.setState(none)), { operation: `set ${none}`, errno: "EINVAL" });
        assert.strictEqual(yield* device.state, before);
      }
    }),
  );

  it.live("is led to RUNNING by a reset from every state", () =>
    Effect.gen(function* () {
      const { device } = yield* openSample(yield* gpio);
      for (const from of states) {
        yield* device.setState(from);
        yield* device.reset;
        assert.strictEqual(yield* device.state, "RUNNING");
      }
    }),
  );

  it.live("gives its stream in PRE_COPY, says 0 when there is no more for now, and gives again what became dirty", () =>
    Effect.gen(function* () {
      const { connection, device } = yield* openSample(yield* gpio);
      yield* device.setState("PRE_COPY");
      assert.strictEqual((yield* drain(device, GPIO_STREAM_BYTES)).length, GPIO_STREAM_BYTES);
      yield* writeRegion(connection, GPIO_BAR, 0, Uint8Array.of(0b101));
      assert.strictEqual((yield* drain(device, GPIO_STREAM_BYTES)).length, GPIO_STREAM_BYTES);
      yield* writeRegion(connection, GPIO_BAR, 0, Uint8Array.of(0b001));
      yield* device.setState("STOP_COPY");
      const pins = new Int32Array((yield* drain(device, GPIO_STREAM_BYTES)).buffer);
      assert.deepStrictEqual([...pins.subarray(0, 4)], [2, 0, 1, 0]);
    }),
  );

  it.live("shows its configuration space in STOP_COPY as it was before, and takes one", () =>
    Effect.gen(function* () {
      const { device } = yield* openSample(yield* gpio);
      const config = yield* device.readConfig;
      // Memory space and bus master on, interrupt line 11.
      config[4] = 6;
      config[0x3c] = 11;
      yield* device.setState("RESUMING");
      yield* device.writeConfig(config);
      yield* device.setState("RUNNING");
      assert.deepStrictEqual(yield* device.readConfig, config);
      yield* device.setState("STOP_COPY");
      assert.deepStrictEqual(yield* device.readConfig, config);
      yield* device.setState("STOP");
      assert.deepStrictEqual(yield* device.readConfig, config);
    }),
  );

  it.live("refuses a write of its stream: such a device cannot be a destination, and says so", () =>
    Effect.gen(function* () {
      const { device } = yield* openSample(yield* gpio);
      yield* device.setState("RESUMING");
      const error = yield* Effect.flip(device.write(new Uint8Array(GPIO_STREAM_BYTES)));
      assert.deepInclude(error, { operation: "write", errno: "EINVAL" });
      assert.strictEqual(yield* device.state, "RESUMING");
    }),
  );

  it.live("keeps its state beyond the connection, and can be taken up from there", () =>
    Effect.gen(function* () {
      const sample = yield* gpio;
      yield* Effect.scoped(Effect.flatMap(openSample(sample), ({ device }) => device.setState("STOP_COPY")));
      const { device } = yield* openSample(sample);
      assert.strictEqual(yield* device.state, "STOP_COPY");
      // It says nothing about regions now.
      assert.strictEqual((yield* device.readConfig).length, 0);
      yield* device.reset;
      assert.strictEqual((yield* device.readConfig).length, 256);
    }),
  );

  it.live("lets a second client wait, which says what may be the matter", () =>
    Effect.gen(function* () {
      const sample = yield* gpio;
      yield* openSample(sample);
      const second = yield* connectVfioUser("second", sample.socketPath, "200 millis");
      const request = { kind: "version", major: 0, minor: 0, text: clientCapabilities() } as const;
      const error = yield* Effect.flip(second.ask({ operation: "version", request, read: () => undefined }));
      assert.strictEqual(error.errno, "ETIMEDOUT");
    }),
  );

  it.live("says that it logs, and logs nothing that it was not given a descriptor of", () =>
    Effect.gen(function* () {
      const { connection } = yield* openSample(yield* gpio);
      assert.isTrue(yield* probeDmaLogging(connection));
      const logging = makeDmaLogging("sample", connection, 1024 * 1024);
      const range = { iova: 0, length: 2 ** 30 };
      yield* logging.start(4096, [range]);
      const error = yield* Effect.flip(logging.report(range, 4096));
      assert.deepInclude(error, { operation: "report DMA logging", errno: "EINVAL" });
      yield* logging.stop;
    }),
  );
});

const TIMER_BAR = 0;
const DATA_BAR = 1;
/** Entering RUNNING arms the sample's timer, which must lie ahead; so far ahead that it never fires here. */
const nextHour = (): Uint8Array => {
  const time = new Uint8Array(8);
  new DataView(time.buffer).setBigInt64(0, BigInt(Math.floor(Date.now() / 1000) + 3600), true);
  return time;
};

suite(`libvfio-user's server${because}`, () => {
  it.live("moves its state to another one, in pieces of any size", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const from = yield* startSample("server", join(directory, "from"));
      const to = yield* startSample("server", join(directory, "to"));
      yield* Effect.scoped(
        Effect.gen(function* () {
          const source = yield* openSample(from);
          const destination = yield* openSample(to);
          const dataBytes = yield* regionBytes(source.connection, DATA_BAR);
          const content = Uint8Array.from({ length: dataBytes }, (_, i) => (i * 31 + (i >>> 8)) & 0xff);
          yield* writeRegion(source.connection, DATA_BAR, 0, content);
          yield* writeRegion(source.connection, TIMER_BAR, 0, nextHour());

          yield* source.device.setState("PRE_COPY");
          // Once over all of BAR1; this sample sends it again in STOP_COPY, and as destination takes it only once.
          assert.deepStrictEqual(yield* drain(source.device, 777), content);
          yield* source.device.setState("STOP_COPY");
          const stream = yield* drain(source.device, 5000);
          assert.strictEqual(stream.length, dataBytes + 8);
          yield* source.device.setState("STOP");
          assert.strictEqual(yield* source.device.state, "STOP");

          yield* destination.device.setState("RESUMING");
          for (let at = 0; at < stream.length; at += 1001)
            yield* destination.device.write(stream.subarray(at, at + 1001));
          yield* destination.device.setState("RUNNING");
          assert.strictEqual(yield* destination.device.state, "RUNNING");
          assert.deepStrictEqual(yield* readRegion(destination.connection, DATA_BAR, dataBytes), content);
        }),
      );
      // Each ends when its client leaves.
      for (const sample of [from, to]) assert.strictEqual(yield* endingOf(sample), 0, sample.output());
    }),
  );

  it.live("reads and writes BAR and stream whole where it can", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const sample = yield* startSample("server", join(directory, "whole"));
      const { connection, device } = yield* openSample(sample);
      yield* writeRegion(connection, TIMER_BAR, 0, nextHour());
      const dataBytes = yield* regionBytes(connection, DATA_BAR);
      yield* device.setState("STOP_COPY");
      // More is asked for than there is: the message is a MiB long, its size is not.
      const into = new Uint8Array(1024 * 1024);
      assert.strictEqual(yield* device.read(into), dataBytes + 8);
      assert.strictEqual(yield* device.read(into), 0);
      yield* device.setState("RESUMING");
      yield* device.write(into.subarray(0, dataBytes + 8));
      yield* device.setState("RUNNING");
      yield* device.reset;
      assert.strictEqual(yield* device.state, "RUNNING");
    }),
  );
});
