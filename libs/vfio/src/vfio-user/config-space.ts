/**
 * A device's PCI configuration space through region 7. All of it is help, none of it a condition: what cannot be read or written is left
 * out, and a migration goes on. Only a connection that is gone is a failure.
 */
import * as Effect from "effect/Effect";
import type { DeviceError } from "../device.ts";
import { type Connection, isRefused } from "./connection.ts";
import { malformed, viewOf } from "./header.ts";
import { CONFIG_REGION, DEVICE_FLAGS_PCI, REGION_FLAG_READ } from "./message.ts";

export interface ConfigSpace {
  /**
   * As it is now or, where the device lets nobody read, as it was when `remember` last could; empty when there is none. libvfio-user
   * refuses reads in STOP_COPY, so it is remembered just before: the guest stands still by then and changes nothing any more.
   */
  readonly read: Effect.Effect<Uint8Array, DeviceError>;
  readonly remember: Effect.Effect<void, DeviceError>;
  /** Whole where the device takes that; else the registers that a guest writes, each by itself. */
  readonly write: (config: Uint8Array) => Effect.Effect<void, DeviceError>;
}

/** The extended configuration space of PCI Express, bytes; there is no larger one. */
const CONFIG_BYTES_MAX = 4096;
/** The header with which every configuration space begins, bytes. */
const HEADER_BYTES = 64;
const HEADER_TYPE = 0x0e;
/**
 * Registers of a type 0 header that a guest sets up, [offset, bytes]: cache line size, latency timer, BARs, interrupt line, and the command
 * register last, so that a BAR is not decoded before it is written. Beyond them are capabilities, whose state is the device's own stream.
 */
const REGISTERS: ReadonlyArray<readonly [number, number]> = [
  [0x0c, 1],
  [0x0d, 1],
  ...[0x10, 0x14, 0x18, 0x1c, 0x20, 0x24].map((offset) => [offset, 4] as const),
  [0x3c, 1],
  [0x04, 2],
];

const EMPTY = new Uint8Array(0);

/** `atOnce`: whether the device takes a write of the whole space. libvfio-user refuses a write that begins at a register it does not know. */
export const makeConfigSpace = (connection: Connection, { atOnce }: { readonly atOnce: boolean }): ConfigSpace => {
  /** Bytes of the region; null until the device has told: in STOP and STOP_COPY libvfio-user does not. */
  let regionBytes: number | null = null;
  let remembered: Uint8Array = EMPTY;

  const discover: Effect.Effect<number | null, DeviceError> = Effect.gen(function* () {
    if (regionBytes !== null) return regionBytes;
    const isPci = yield* connection.tryAsk({
      operation: "get info",
      request: { kind: "device-info" },
      read: ({ flags, regions }) => (flags & DEVICE_FLAGS_PCI) !== 0 && regions > CONFIG_REGION,
    });
    if (isRefused(isPci)) return null;
    if (!isPci) {
      regionBytes = 0;
      return 0;
    }
    const bytes = yield* connection.tryAsk({
      operation: "get region info",
      request: { kind: "region-info", region: CONFIG_REGION },
      read: (reply) => ((reply.flags & REGION_FLAG_READ) === 0 ? 0 : Math.min(reply.bytes, CONFIG_BYTES_MAX)),
    });
    if (isRefused(bytes)) return null;
    regionBytes = bytes;
    return bytes;
  });

  const remember = Effect.gen(function* () {
    const count = yield* discover;
    if (count === null || count === 0) return;
    const config = yield* connection.tryAsk({
      operation: "read config",
      request: { kind: "region-read", region: CONFIG_REGION, offset: 0, count },
      read: ({ data }) => (data.length > count ? malformed(`${data.length} bytes of ${count}`) : data.slice()),
    });
    if (!isRefused(config)) remembered = config;
  });

  const writeAt = (offset: number, data: Uint8Array) =>
    connection.tryAsk({
      operation: "write config",
      request: { kind: "region-write", region: CONFIG_REGION, offset, data },
      read: () => "written" as const,
    });

  const write: ConfigSpace["write"] = Effect.fnUntraced(function* (config) {
    if (config.length === 0) return;
    if (atOnce && !isRefused(yield* writeAt(0, config))) return;
    if (config.length < HEADER_BYTES || (viewOf(config).getUint8(HEADER_TYPE) & 0x7f) !== 0) return;
    for (const [offset, bytes] of REGISTERS) yield* writeAt(offset, config.subarray(offset, offset + bytes));
  });

  return { read: Effect.map(remember, () => remembered), remember, write };
};
