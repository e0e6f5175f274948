/** How fast device state moves when only the machine limits it, who uses the processors for it, and what bare NATS carries. */
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { moveBareDevices } from "../bare/devices.ts";
import { openBareLane } from "../bare/lane.ts";
import { MESSAGE_BYTES, MESSAGE_PAYLOAD_BYTES, WINDOW_BYTES } from "../bare/sizes.ts";
import type { BenchOptions } from "../part.ts";
import { childRunning, cpuSeconds } from "../process-usage.ts";
import { median, type Spread, spreadOf } from "../samples.ts";
import { type NodeName, otherNode, type Testbed } from "../testbed.ts";
import { watchDeviceBytes } from "./device-bytes.ts";
import { bringDeviceGuest, type DeviceGuest } from "./device-guest.ts";
import { deviceSeconds } from "./device-processes.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const GUEST = "rate";
const CHANNELS = 4;
const DEVICES = 4;
const STATE_BYTES = 256e6;

const LANES = ["nats", "direct"] as const;
type LaneName = (typeof LANES)[number];

export interface RateFigures {
  /** Of all devices together. */
  readonly bytes: number;
  /** MiB/s: messages of the same size with nothing done to them, and the same devices with plain nats.js between them. */
  readonly bare: Spread;
  readonly bareDevices: Spread;
  readonly lanes: Readonly<Record<LaneName, LaneFigures>>;
}
export interface LaneFigures {
  /** MiB/s, and its ratios to bare nats.js in the same turn, with messages alone and with the same devices. */
  readonly moved: Spread;
  readonly ratio: Spread;
  readonly deviceRatio: Spread;
  /** Medians of processor time, s for each GiB of device state. */
  readonly cpu: Readonly<Record<string, number>>;
}

interface Moved {
  readonly moved: number;
  readonly cpu: Readonly<Record<string, number>>;
}
type Sample = Readonly<Record<LaneName, Moved>> & { readonly bare: number; readonly bareDevices: number };

export const measureRate = Effect.fnUntraced(function* (
  testbed: Testbed,
  workers: number,
  { quick, progress }: BenchOptions,
): Effect.fn.Return<RateFigures, unknown, Scope.Scope> {
  const stateBytes = quick ? STATE_BYTES / 8 : STATE_BYTES;
  const bytes = DEVICES * stateBytes;
  const guest = yield* bringDeviceGuest(testbed, {
    name: GUEST,
    memoryBytes: 16 * MIB,
    dirtyRateBytesPerSecond: 0,
    devices: Array.from({ length: DEVICES }, (_, index) => ({ name: `vfio${index}`, stateBytes, seed: index + 1 })),
  });
  const messages = Math.floor(bytes / MESSAGE_PAYLOAD_BYTES / CHANNELS);
  const ends = { url: testbed.cluster.url, fabric: testbed.fabric };
  const bare = yield* openBareLane({
    client: "nats.js",
    ...ends,
    publishers: CHANNELS,
    messageBytes: MESSAGE_BYTES,
    messages,
    window: WINDOW_BYTES / MESSAGE_PAYLOAD_BYTES,
  });
  const bareMib = (messages * CHANNELS * MESSAGE_PAYLOAD_BYTES) / MIB;
  const samples: Sample[] = [];
  // The first round warms everybody up, and is not counted.
  for (let round = 0; round <= (quick ? 1 : 3); round++) {
    const sample: Sample = {
      bare: bareMib / (yield* bare.run),
      bareDevices: bytes / MIB / (yield* moveBareDevices({ ...ends, devices: DEVICES, stateBytes })),
      nats: yield* moveOnce(testbed, workers, guest, bytes, "nats"),
      direct: yield* moveOnce(testbed, workers, guest, bytes, "direct"),
    };
    const moved = LANES.map((lane) => `${lane} ${sample[lane].moved.toFixed(0)}`).join(", ");
    progress(
      `${moved}, bare ${sample.bare.toFixed(0)}, with devices ${sample.bareDevices.toFixed(0)} MiB/s${round === 0 ? " (warming up)" : ""}`,
    );
    if (round > 0) samples.push(sample);
  }
  const figuresOf = (lane: LaneName): LaneFigures => ({
    moved: spreadOf(samples.map((sample) => sample[lane].moved)),
    ratio: spreadOf(samples.map((sample) => sample[lane].moved / sample.bare)),
    deviceRatio: spreadOf(samples.map((sample) => sample[lane].moved / sample.bareDevices)),
    cpu: Object.fromEntries(
      Object.keys(samples[0]![lane].cpu).map((name) => [
        name,
        median(samples.map((sample) => sample[lane].cpu[name]!)),
      ]),
    ),
  });
  const bareSpread = spreadOf(samples.map((sample) => sample.bare));
  const bareDevices = spreadOf(samples.map((sample) => sample.bareDevices));
  return { bytes, bare: bareSpread, bareDevices, lanes: { nats: figuresOf("nats"), direct: figuresOf("direct") } };
});

const moveOnce = (testbed: Testbed, workers: number, guest: DeviceGuest, bytesMin: number, lane: LaneName) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { pidOf, memoryDirectory } = testbed;
      const source = guest.at();
      const destination = otherNode(source);
      // Of this guest alone: other parts may have left theirs.
      const secondsAt = (node: NodeName): number => deviceSeconds(`${memoryDirectory}/${node}/${GUEST}.vfio`);
      const read = (): Readonly<Record<string, number>> => ({
        "agent, source": cpuSeconds(pidOf("vfio-agent", source, "0")),
        workers: Array.from({ length: workers }, (_, id) =>
          cpuSeconds(pidOf("multifd-worker", source, String(id))),
        ).reduce((sum, seconds) => sum + seconds),
        "nats-server": cpuSeconds(childRunning("nats-server")),
        "agent, destination": cpuSeconds(pidOf("vfio-agent", destination, "0")),
      });
      const watched = yield* watchDeviceBytes(testbed.fabric);
      const before = read();
      const savingBefore = secondsAt(source);
      let saving = 0;
      yield* guest.move(
        { "multifd-channels": CHANNELS, lane },
        { seen: () => (saving = Math.max(saving, secondsAt(source) - savingBefore)) },
      );
      const after = read();
      const { bytes, seconds } = yield* watched;
      if (bytes < bytesMin)
        return yield* Effect.fail(new Error(`${bytes} bytes of device state were seen, of ${bytesMin}`));
      const perGib = GIB / bytes;
      const cpu = Object.fromEntries(
        Object.entries(after).map(([name, spent]) => [name, (spent - before[name]!) * perGib]),
      );
      const devices = {
        "devices, source": saving * perGib,
        "devices, destination": secondsAt(destination) * perGib,
      };
      return { moved: bytes / MIB / seconds, cpu: { ...cpu, ...devices } };
    }),
  );
