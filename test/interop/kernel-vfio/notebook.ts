/** The tests' own device, `notebook/`: pages that are read and written through region 0. It does what an mtty does not. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readSync, writeSync } from "node:fs";
import type { KernelDevice, VfioDevice } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import { conformanceCases } from "../../../libs/vfio/src/conformance/cases.ts";
import type { ConformanceCase, DeviceFacts, DevicePair } from "../../../libs/vfio/src/conformance/facts.ts";
import { captured, go, readPass, refusal, writeAll } from "../../../libs/vfio/src/conformance/stream.ts";
import type { Cargo } from "./migration.ts";

const FACTS: DeviceFacts = {
  features: { stopCopy: true, p2p: false, preCopy: true },
  config: true,
  dirtyLogging: true,
  precopyInfo: true,
  stopCopyBytes: true,
  loads: true,
  // Who closes it last resets it, as drivers of hardware do.
  keepsStateWhenClosed: false,
};

const PAGE_BYTES = 4096;
const HEAD_BYTES = 16;
const RECORD_HEAD_BYTES = 8;
const RECORD_BYTES = RECORD_HEAD_BYTES + PAGE_BYTES;
/** What one read gives at most. */
const READ_BYTES_MAX = 40_000;
const SMALL_BYTES = 256 * PAGE_BYTES;
const LARGE_BYTES = 2048 * PAGE_BYTES;
const initialBytesOf = (bytes: number): number => HEAD_BYTES + (bytes / PAGE_BYTES) * RECORD_BYTES;

const descriptorOf = (device: VfioDevice): number => (device as KernelDevice).descriptor;

/** Region 2 takes what shall happen next, once. */
const ORDERS_AT = 2 * 2 ** 40;
const FAIL = 1;
const REFUSE = 2;
const CHOKE = 3;
const DIRTY = 4;
const orderOf = (descriptor: number, verb: number, page = 0): void => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(page * 256 + verb);
  writeSync(descriptor, bytes, 0, 4, ORDERS_AT);
};
const order = (device: VfioDevice, verb: number, page?: number): void => orderOf(descriptorOf(device), verb, page);

const readPages = (descriptor: number, bytes: number): Buffer => {
  const pages = Buffer.alloc(bytes);
  readSync(descriptor, pages, 0, bytes, 0);
  return pages;
};
/** Three pages of it: 9000 bytes from the first page's middle. */
const SCRAWL_AT = 100;
const SCRAWL_PAGES = 3;
const scrawl = (descriptor: number, ink = randomBytes(9000)): void => {
  writeSync(descriptor, ink, 0, ink.length, SCRAWL_AT);
};

/** What is written into a small one before its cases. */
export const fillNotebook = (descriptor: number): void => {
  writeSync(descriptor, randomBytes(SMALL_BYTES), 0, SMALL_BYTES, 0);
};

export const inNotebooks: Pick<DevicePair, "touch" | "isEqual"> = {
  touch: (source) => Effect.sync(() => scrawl(descriptorOf(source))),
  isEqual: (source, destination) =>
    Effect.sync(() =>
      readPages(descriptorOf(source), SMALL_BYTES).equals(readPages(descriptorOf(destination), SMALL_BYTES)),
    ),
};

const saysWhatIsDirty: ConformanceCase = {
  name: "has nothing for now at the end of a pass (ENOMSG), then what was written since, and says how much",
  run: ({ source }) =>
    Effect.gen(function* () {
      const device = yield* source;
      yield* go(device, "PRE_COPY");
      const initialBytes = initialBytesOf(SMALL_BYTES);
      assert.deepEqual(yield* device.precopyInfo, { initialBytes, dirtyBytes: 0 });
      assert.equal(yield* device.read(Buffer.alloc(1 << 20)), READ_BYTES_MAX);
      assert.equal((yield* readPass(device, FACTS)).length, initialBytes - READ_BYTES_MAX);
      assert.deepEqual(yield* device.precopyInfo, { initialBytes: 0, dirtyBytes: 0 });
      const dirtyBytes = SCRAWL_PAGES * RECORD_BYTES;
      scrawl(descriptorOf(device));
      assert.deepEqual(yield* device.precopyInfo, { initialBytes: 0, dirtyBytes });
      assert.equal((yield* readPass(device, FACTS)).length, dirtyBytes);
      scrawl(descriptorOf(device));
      yield* go(device, "STOP_COPY");
      assert.equal((yield* readPass(device, FACTS)).length, dirtyBytes + RECORD_HEAD_BYTES);
    }),
};

const failsIntoError: ConformanceCase = {
  name: "is in ERROR after a state change that failed, which only a reset leaves",
  run: ({ source }) =>
    Effect.gen(function* () {
      const device = yield* source;
      const whole = yield* captured(device, FACTS);
      for (const from of ["RUNNING", "PRE_COPY", "STOP_COPY", "RESUMING"] as const) {
        yield* go(device, from);
        order(device, FAIL);
        const to = from === "STOP_COPY" || from === "RESUMING" ? "RUNNING" : "STOP_COPY";
        assert.equal((yield* refusal(`${from} -> ${to}`, device.setState(to))).errno, "EIO");
        assert.equal(yield* device.state, "ERROR");
        yield* refusal("a read in ERROR", device.read(Buffer.alloc(64)));
        for (const out of ["RUNNING", "STOP", "RESUMING"] as const)
          assert.equal((yield* refusal(`ERROR -> ${out}`, device.setState(out))).errno, "EINVAL");
        assert.equal(yield* device.state, "ERROR");
        yield* device.reset;
        assert.equal(yield* device.state, "RUNNING");
        assert.deepEqual(yield* captured(device, FACTS), whole);
      }
    }),
};

const isBusy: ConformanceCase = {
  name: "stays where it is, with its stream, when a state change is refused: EBUSY",
  run: ({ source }) =>
    Effect.gen(function* () {
      const device = yield* source;
      order(device, REFUSE);
      assert.equal((yield* refusal("a busy device", device.setState("PRE_COPY"))).errno, "EBUSY");
      yield* go(device, "PRE_COPY");
      const bytes = yield* device.read(Buffer.alloc(1000));
      order(device, REFUSE);
      assert.equal((yield* refusal("a busy device", device.setState("STOP_COPY"))).errno, "EBUSY");
      assert.equal(yield* device.state, "PRE_COPY");
      yield* go(device, "STOP_COPY");
      const rest = yield* readPass(device, FACTS);
      assert.equal(bytes + rest.length, initialBytesOf(SMALL_BYTES) + RECORD_HEAD_BYTES);
    }),
};

const chokes: ConformanceCase = {
  name: "says that a read or a write failed, EIO, and is not in ERROR for it",
  run: (pair) =>
    Effect.gen(function* () {
      const source = yield* pair.source;
      const stream = yield* captured(source, FACTS);
      yield* go(source, "STOP_COPY");
      order(source, CHOKE);
      assert.equal((yield* refusal("a read", source.read(Buffer.alloc(64)))).errno, "EIO");
      assert.equal(yield* source.state, "STOP_COPY");
      assert.deepEqual(yield* readPass(source, FACTS), stream);
      const destination = yield* pair.destination;
      yield* go(destination, "RESUMING");
      order(destination, CHOKE);
      assert.equal((yield* refusal("a write", destination.write(stream))).errno, "EIO");
      assert.equal(yield* destination.state, "RESUMING");
      yield* destination.reset;
      yield* go(destination, "RESUMING");
      yield* writeAll(destination, FACTS, stream);
      yield* go(destination, "RUNNING");
    }),
};

/** Numbers of the pages whose bit is set. */
const pagesOf = (bitmap: Uint8Array): ReadonlyArray<number> =>
  Array.from({ length: bitmap.length * 8 }, (_, page) => page).filter(
    (page) => ((bitmap[page >> 3]! >> (page & 7)) & 1) !== 0,
  );

const reportsPages: ConformanceCase = {
  name: "reports the pages that it wrote by DMA, once, and those of the range alone",
  run: ({ source }) =>
    Effect.gen(function* () {
      const device = yield* source;
      const { start, report, stop } = device.dmaLogging!;
      const all = { iova: 0, length: 1000 * PAGE_BYTES };
      const middle = { iova: 64 * PAGE_BYTES, length: 64 * PAGE_BYTES };
      yield* start(PAGE_BYTES, [all]);
      assert.equal((yield* refusal("a second start", start(PAGE_BYTES, [all]))).errno, "EINVAL");
      for (const page of [0, 3, 63, 64, 100, 127, 128, 999]) order(device, DIRTY, page);
      assert.deepEqual(pagesOf(yield* report(middle, PAGE_BYTES)), [0, 36, 63]);
      assert.deepEqual(pagesOf(yield* report(all, PAGE_BYTES)), [0, 3, 63, 128, 999]);
      assert.deepEqual(pagesOf(yield* report(all, PAGE_BYTES)), []);
      yield* stop;
      assert.equal((yield* refusal("a report after the stop", report(all, PAGE_BYTES))).errno, "EINVAL");
      yield* start(PAGE_BYTES, [all]);
      yield* stop;
    }),
};

export const NOTEBOOK_CASES: ReadonlyArray<ConformanceCase> = [
  ...conformanceCases(FACTS),
  saysWhatIsDirty,
  failsIntoError,
  isBusy,
  chokes,
  reportsPages,
];

/** A mute one logs, and its kernel cannot report it: found out where nobody can be logging yet. */
export const isKnownToBeMute: ConformanceCase = {
  name: "counts as one that does not log when no report can be had",
  run: ({ source }) => Effect.map(source, ({ dmaLogging }) => assert.equal(dmaLogging, null)),
};
/** A report would clear what belongs to the VMM that has the device, so it is not tried. */
export const isBelievedToLog: ConformanceCase = {
  name: "is believed to log, until a report cannot be had",
  run: ({ source }) =>
    Effect.gen(function* () {
      const logging = (yield* source).dmaLogging;
      assert.ok(logging !== null);
      const range = { iova: 0, length: 100 * PAGE_BYTES };
      yield* logging.start(PAGE_BYTES, [range]);
      assert.equal((yield* refusal("a report", logging.report(range, PAGE_BYTES))).errno, "ENOTSUP");
      yield* logging.stop;
    }),
};

const digestOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** A large one, which is written to while its first pass goes on, or after it, and writes to both of a guest's RAMBlocks then. */
export const largeCargo = (): Cargo => {
  const pages = randomBytes(LARGE_BYTES);
  const ink = randomBytes(9000);
  const streamBytes = initialBytesOf(LARGE_BYTES) + RECORD_HEAD_BYTES;
  return {
    p2p: false,
    fill: (descriptor) => void writeSync(descriptor, pages, 0, LARGE_BYTES, 0),
    touch: (descriptor) => {
      scrawl(descriptor, ink);
      for (const page of [5, 6, 256 + 188]) orderOf(descriptor, DIRTY, page);
    },
    memory: { blockBytes: [256 * PAGE_BYTES, 512 * PAGE_BYTES], runs: [0, 5, 2, 1, 188, 1] },
    content: (descriptor) => digestOf(readPages(descriptor, LARGE_BYTES)),
    arrives: digestOf(Buffer.concat([pages.subarray(0, SCRAWL_AT), ink, pages.subarray(SCRAWL_AT + ink.length)])),
    streamBytes: [streamBytes, streamBytes + SCRAWL_PAGES * RECORD_BYTES],
  };
};
