/** The downtime with and without switchover-ack, where a device takes its time to make ready for the state that comes. */
import type { MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type { BenchOptions } from "../part.ts";
import { type Spread, spreadOf } from "../samples.ts";
import type { Testbed } from "../testbed.ts";
import { bringDeviceGuest } from "./device-guest.ts";

const MIB = 1024 ** 2;
/** The device of the series that brought switchover-ack to QEMU: so much state, all of it initial data, and so long to allocate for it. */
const STATE_BYTES = 300e6;
const ALLOCATION_MS = 1480;
const MEMORY_BYTES = 128 * MIB;
/** What guest and device change while they run, bytes/s. */
const GUEST_DIRTY_RATE = 8 * MIB;
const DEVICE_DIRTY_RATE = 2e6;
/** As the default is: the last megabyte, which waits for the allocation, promises much less. */
const DOWNTIME_LIMIT_MS = 300;

export interface AcknowledgedFigures {
  readonly stateBytes: number;
  readonly allocationMs: number;
  /** ms. */
  readonly off: Spread;
  readonly on: Spread;
  readonly ratio: Spread;
  /** Of which the devices had their initial data loaded before the stop; with the capability, all. */
  readonly migrations: ReadonlyArray<MigrationInfo>;
}

export const measureAcknowledged = Effect.fnUntraced(function* (
  testbed: Testbed,
  { quick, progress }: BenchOptions,
): Effect.fn.Return<AcknowledgedFigures, unknown> {
  const stateBytes = quick ? STATE_BYTES / 10 : STATE_BYTES;
  const repetitions = quick ? 1 : 3;
  const guest = yield* bringDeviceGuest(testbed, {
    name: "ack",
    memoryBytes: MEMORY_BYTES,
    dirtyRateBytesPerSecond: GUEST_DIRTY_RATE,
    devices: [
      {
        name: "vfio0",
        stateBytes,
        initialBytes: stateBytes,
        allocationMs: ALLOCATION_MS,
        dirtyBytesPerSecond: DEVICE_DIRTY_RATE,
      },
    ],
  });
  const migrations: MigrationInfo[] = [];
  const move = Effect.fnUntraced(function* (ack: boolean) {
    const parameters = { "multifd-channels": 4, "downtime-limit": DOWNTIME_LIMIT_MS };
    const info = yield* guest.move(parameters, { capabilities: { "switchover-ack": ack } });
    migrations.push(info);
    return info.downtime ?? 0;
  });
  const pairs: Array<{ readonly off: number; readonly on: number }> = [];
  for (let pair = 0; pair < repetitions; pair++) {
    const off = yield* move(false);
    const on = yield* move(true);
    progress(`switchover-ack off ${off} ms, on ${on} ms`);
    pairs.push({ off, on });
  }
  return {
    stateBytes,
    allocationMs: ALLOCATION_MS,
    off: spreadOf(pairs.map(({ off }) => off)),
    on: spreadOf(pairs.map(({ on }) => on)),
    ratio: spreadOf(pairs.map(({ off, on }) => off / on)),
    migrations,
  };
});
