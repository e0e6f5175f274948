/** The kernel's sample device with two UARTs: samples/vfio-mdev/mtty.c of Linux 6.12, and what it does that other devices need not. */
import assert from "node:assert/strict";
import { readSync, writeSync } from "node:fs";
import * as Effect from "effect/Effect";
import { conformanceCases } from "../../../libs/vfio/src/conformance/cases.ts";
import type { ConformanceCase, DeviceFacts } from "../../../libs/vfio/src/conformance/facts.ts";
import { captured, go, readPass, refusal } from "../../../libs/vfio/src/conformance/stream.ts";
import type { Cargo } from "./migration.ts";

const MTTY: DeviceFacts = {
  features: { stopCopy: true, p2p: true, preCopy: true },
  config: true,
  // It takes START and STOP, and reports nothing ever.
  dirtyLogging: true,
  precopyInfo: true,
  stopCopyBytes: true,
  loads: true,
  // It looks at its header only.
  noticesDamage: false,
};

const PORTS = [0, 1];
const HEADER_BYTES = 24;
/** A header, and 36 bytes for each port. */
const STREAM_BYTES = HEADER_BYTES + 36 * PORTS.length;

/** Where a port's registers begin in the device's file: its BAR is the region of the same number. */
const registersOf = (port: number): number => port * 2 ** 40;
/** Writing puts a byte into the port's FIFO, reading takes one out: what is sent comes back. */
const FIFO = 0;
/** Bit 0: the FIFO has a byte. */
const LINE_STATUS = 5;
/** Anybody may write what they like there. */
const SCRATCH = 7;

const put = (descriptor: number, port: number, register: number, value: number): void => {
  writeSync(descriptor, Uint8Array.of(value), 0, 1, registersOf(port) + register);
};
const take = (descriptor: number, port: number, register: number): number => {
  const byte = new Uint8Array(1);
  readSync(descriptor, byte, 0, 1, registersOf(port) + register);
  return byte[0]!;
};

interface UartContent {
  readonly scratch: number;
  readonly sent: string;
}

/** One for each port. */
const fillUarts = (descriptor: number, contents: ReadonlyArray<UartContent>): void => {
  contents.forEach(({ scratch, sent }, port) => {
    put(descriptor, port, SCRATCH, scratch);
    for (const byte of Buffer.from(sent)) put(descriptor, port, FIFO, byte);
  });
};

/** Empties the FIFOs. */
const drainUarts = (descriptor: number): ReadonlyArray<UartContent> =>
  PORTS.map((port) => {
    const sent: Array<number> = [];
    while ((take(descriptor, port, LINE_STATUS) & 1) !== 0) sent.push(take(descriptor, port, FIFO));
    return { scratch: take(descriptor, port, SCRATCH), sent: Buffer.from(sent).toString("latin1") };
  });

/** Beside the contract: what the provider makes of this driver's own ways. */
const OWN_WAYS: ReadonlyArray<ConformanceCase> = [
  {
    name: "gives its header in PRE_COPY, then 0, and the rest in STOP_COPY",
    run: ({ source }) =>
      Effect.gen(function* () {
        const device = yield* source;
        yield* go(device, "PRE_COPY");
        assert.deepEqual(yield* device.precopyInfo, { initialBytes: HEADER_BYTES, dirtyBytes: 0 });
        assert.equal((yield* readPass(device, MTTY)).length, HEADER_BYTES);
        assert.equal((yield* readPass(device, MTTY)).length, 0);
        yield* go(device, "STOP_COPY");
        assert.equal((yield* readPass(device, MTTY)).length, STREAM_BYTES - HEADER_BYTES);
      }),
  },
  {
    name: "takes no byte beyond its stream: ENOMEM",
    run: (pair) =>
      Effect.gen(function* () {
        const stream = yield* captured(yield* pair.source, MTTY);
        assert.equal(stream.length, STREAM_BYTES);
        const destination = yield* pair.destination;
        yield* go(destination, "RESUMING");
        yield* destination.write(stream);
        assert.equal((yield* refusal("a byte too many", destination.write(Uint8Array.of(0)))).errno, "ENOMEM");
        assert.equal(yield* destination.state, "RESUMING");
      }),
  },
  {
    name: "refuses the header of another device: EFAULT, by the write that completes it",
    run: (pair) =>
      Effect.gen(function* () {
        const stream = yield* captured(yield* pair.source, MTTY);
        stream[0]! ^= 1;
        const destination = yield* pair.destination;
        yield* go(destination, "RESUMING");
        yield* destination.write(stream.subarray(0, HEADER_BYTES - 1));
        const rest = destination.write(stream.subarray(HEADER_BYTES - 1));
        assert.equal((yield* refusal("another device's header", rest)).errno, "EFAULT");
        assert.equal(yield* destination.state, "RESUMING");
        yield* destination.reset;
        assert.equal(yield* destination.state, "RUNNING");
      }),
  },
];

export const MTTY_CASES: ReadonlyArray<ConformanceCase> = [...conformanceCases(MTTY), ...OWN_WAYS];

/** What is in its two UARTs. */
const WRITTEN = [
  { scratch: 0x5a, sent: "from one agent" },
  { scratch: 0xa5, sent: "to another" },
];
export const UARTS: Cargo = {
  p2p: true,
  fill: (descriptor) => fillUarts(descriptor, WRITTEN),
  content: drainUarts,
  arrives: WRITTEN,
  streamBytes: [STREAM_BYTES, STREAM_BYTES],
};
