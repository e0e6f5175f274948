/** The downtime of devices that give all their state in STOP_COPY, one after the other and side by side. */
import { STOP_COPY_ONLY } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import type { BenchOptions } from "../part.ts";
import { type Spread, spreadOf } from "../samples.ts";
import type { Testbed } from "../testbed.ts";
import { bringDeviceGuest, PATIENT } from "./device-guest.ts";

const MIB = 1024 ** 2;
const DEVICES = [1, 2, 4] as const;
const CHANNELS = 4;
const STATE_BYTES = 256e6;
/** What one device gives, bytes/s: four of them stay below what two cores move, so that it is the devices that are waited for. */
const READ_RATE = 20e6;

export interface SideBySideRow {
  readonly devices: number;
  /** Downtime with `x-migration-multifd-transfer` off and on, ms. */
  readonly off: Spread;
  readonly on: Spread;
}

export interface SideBySideFigures {
  readonly stateBytes: number;
  readonly readBytesPerSecond: number;
  readonly rows: ReadonlyArray<SideBySideRow>;
}

export const measureSideBySide = Effect.fnUntraced(function* (
  testbed: Testbed,
  { quick, progress }: BenchOptions,
): Effect.fn.Return<SideBySideFigures, unknown> {
  const stateBytes = quick ? STATE_BYTES / 16 : STATE_BYTES;
  const repetitions = quick ? 1 : 2;
  const measure = Effect.fnUntraced(function* (devices: number) {
    const guest = yield* bringDeviceGuest(testbed, {
      name: `side-${devices}`,
      memoryBytes: 32 * MIB,
      dirtyRateBytesPerSecond: 0,
      devices: Array.from({ length: devices }, (_, index) => ({
        ...STOP_COPY_ONLY,
        name: `vfio${index}`,
        stateBytes,
        readBytesPerSecond: READ_RATE,
        seed: index + 1,
      })),
    });
    const move = (transfer: "off" | "on") =>
      guest
        .move({ ...PATIENT, "multifd-channels": CHANNELS, "x-migration-multifd-transfer": transfer })
        .pipe(Effect.map(({ downtime }) => downtime ?? 0));
    const pairs: Array<{ readonly off: number; readonly on: number }> = [];
    for (let pair = 0; pair < repetitions; pair++) {
      const off = yield* move("off");
      const on = yield* move("on");
      progress(`${devices} devices: one after the other ${off} ms, side by side ${on} ms`);
      pairs.push({ off, on });
    }
    return { devices, off: spreadOf(pairs.map(({ off }) => off)), on: spreadOf(pairs.map(({ on }) => on)) };
  });
  return { stateBytes, readBytesPerSecond: READ_RATE, rows: yield* Effect.forEach(DEVICES, measure) };
});
