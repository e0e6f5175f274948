import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32, deflateSync, zstdCompressSync } from "node:zlib";
import {
  type Compression,
  DEVICE_STATE_BYTES_MAX,
  decodeAcknowledgement,
  type Offer,
  PACKET_HEADER_BYTES,
  PAGE_BYTES,
  type PagesPacket,
  payloadOffset,
  SHORT_PAGE_BYTES,
  type ShortPage,
  SLICE_BYTES_MAX,
  sealPages,
  sealSlice,
} from "@godwit/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openReceiver, type Receiver } from "./applying.ts";
import { step } from "./decisions/destination.ts";
import { makeDestination } from "./decisions/destination-state.ts";
import { type Destination, Fence } from "./decisions/index.ts";
import { receive } from "./receiving.ts";

const MIGRATION = "0123456789abcdef";
const EPOCH = 7;
/** Two blocks with a page of somebody else's before, between and behind them in the one file. */
const PAGES = [32, 16] as const;
const OFFSETS = [PAGE_BYTES, (1 + 32 + 1) * PAGE_BYTES] as const;
const FILE_BYTES = (1 + 32 + 1 + 16 + 1) * PAGE_BYTES;

/** Items of the newest round that the fence has seen applied. */
const appliedItems = (): number[] => {
  const { fence } = destination;
  const all = Array.from({ length: fence.itemsMax }, (_, item) => item);
  return all.filter((item) => Fence.isApplied(fence, { round: Fence.roundOf(fence), item }));
};

let directory: string;
let ramPath: string;
let before: Buffer;
let destination: Destination;
let receiver: Receiver;

beforeEach(() => {
  directory = mkdtempSync("/dev/shm/godwit-receiving-");
  ramPath = join(directory, "ram");
  before = randomBytes(FILE_BYTES);
  writeFileSync(ramPath, before);
  const blocks = PAGES.map((pages, index) => ({
    name: `ram${index}`,
    lengthBytes: pages * PAGE_BYTES,
    hostPageBytes: PAGE_BYTES,
    path: ramPath,
    fileOffset: OFFSETS[index]!,
  }));
  const offer: Offer = {
    version: 1,
    driver: "builtin",
    machine: "m",
    hypervisor: "h",
    running: true,
    blocks: blocks.map((block) => ({ name: block.name, "length-bytes": block.lengthBytes, "page-size": PAGE_BYTES })),
  };
  receiver = openReceiver(blocks, join(directory, "device"));
  destination = makeDestination({
    migration: MIGRATION,
    guest: "vm",
    node: "b",
    source: "a",
    incarnation: "f".repeat(16),
    epoch: EPOCH,
    authority: { term: 1, coordinator: null },
    offer,
    now: 0,
  });
  step(destination, { _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(48)), loaded: false }, 0);
});
afterEach(() => {
  receiver.close();
  rmSync(directory, { recursive: true, force: true });
});

interface Change {
  readonly migration?: string;
  readonly epoch?: number;
  readonly round?: number;
  readonly item?: number;
  readonly block?: number;
  readonly runs?: ReadonlyArray<number>;
  readonly zeros?: ReadonlyArray<number>;
  readonly compression?: Compression;
  /** The payload as it stands in the packet; otherwise pages full of 0xab, packed. */
  readonly payload?: Uint8Array;
  readonly rawBytes?: number;
  readonly short?: ReadonlyArray<ShortPage>;
  readonly overflow?: number;
}
const address = ({ migration = MIGRATION, epoch = EPOCH, round = 1, item = 0 }: Change) => ({
  migration,
  epoch,
  round,
  item,
  channel: 0,
  channelEpoch: 1,
});
const packed = (kind: Compression, bytes: Uint8Array): Uint8Array =>
  kind === "zlib" ? deflateSync(bytes) : kind === "zstd" ? zstdCompressSync(bytes) : bytes;

const pagesPacket = (change: Change = {}): Uint8Array => {
  const { runs = [3, 2, 8, 1], zeros = [], compression = "none", block = 0 } = change;
  const pages = runs.reduce((sum, count, index) => sum + (index % 2 === 1 ? count : 0), 0);
  const zeroMap = new Uint8Array((pages + 7) >>> 3);
  for (const index of zeros) zeroMap[index >>> 3]! |= 1 << (index & 7);
  const normalPages = pages - zeros.length;
  const payload = change.payload ?? packed(compression, Buffer.alloc(normalPages * PAGE_BYTES, 0xab));
  const start = payloadOffset(runs.length / 2, pages);
  const buffer = new Uint8Array(start + payload.length + (change.short?.length ?? 0) * SHORT_PAGE_BYTES);
  buffer.set(payload, start);
  return sealPages(buffer, {
    ...address(change),
    block,
    compression,
    runs: Uint32Array.from(runs),
    pages,
    normalPages,
    zeroMap,
    short: change.short ?? [],
    overflow: change.overflow ?? 0,
    payloadBytes: payload.length,
    rawBytes: change.rawBytes ?? normalPages * PAGE_BYTES,
  } satisfies Omit<PagesPacket, "kind" | "payload"> & { payloadBytes: number });
};
const slicePacket = (change: Change & { stream?: number; offset?: number; bytes?: Uint8Array } = {}): Uint8Array => {
  const { stream = 0, offset = 0, compression = "none", bytes = Buffer.alloc(100, 0xcd) } = change;
  const payload = change.payload ?? packed(compression, bytes);
  const buffer = new Uint8Array(PACKET_HEADER_BYTES + payload.length);
  buffer.set(payload, PACKET_HEADER_BYTES);
  return sealSlice(buffer, {
    ...address(change),
    stream,
    offset,
    compression,
    payloadBytes: payload.length,
    rawBytes: change.rawBytes ?? bytes.length,
  });
};
/** A packet after `change`, with its checksum right again. */
const forged = (bytes: Uint8Array, change: (view: DataView) => void): Uint8Array => {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  change(view);
  view.setUint32(60, crc32(copy.subarray(64), crc32(copy.subarray(0, 60))), true);
  return copy;
};

const receiveAll = (...packets: ReadonlyArray<Uint8Array>) =>
  receive(
    destination,
    receiver,
    packets.map((data) => ({ subject: "s", data })),
  );
const ram = (): Buffer => readFileSync(ramPath);
const deviceState = (): Buffer => readFileSync(receiver.deviceStatePath);
/** The file with `pages` of a block replaced, and everything else as it was. */
const withPages = (block: 0 | 1, pages: ReadonlyArray<number>, value: number): Buffer => {
  const expected = Buffer.from(before);
  for (const page of pages)
    expected.fill(value, OFFSETS[block] + page * PAGE_BYTES, OFFSETS[block] + (page + 1) * PAGE_BYTES);
  return expected;
};
const ackOf = (bytes: Uint8Array | undefined) => {
  const ack = decodeAcknowledgement(bytes ?? new Uint8Array(0));
  if (ack.kind === "malformed") throw new Error(ack.reason);
  return ack;
};

describe("a packet that belongs here", () => {
  it.each(["none", "zlib", "zstd"] as const)("packed with %s changes its own pages and nothing else", (compression) => {
    const { acknowledgements, complaint } = receiveAll(pagesPacket({ compression }));
    expect(complaint).toBeNull();
    expect(ram().equals(withPages(0, [3, 4, 8], 0xab))).toBe(true);
    expect(ackOf(acknowledgements[0])).toMatchObject({
      kind: "applied",
      migration: MIGRATION,
      epoch: EPOCH,
      round: 1,
      incarnation: "f".repeat(16),
      items: Uint32Array.of(0),
      normalPages: 3,
    });
  });

  it("of zero pages makes them read as zeros, at the very ends of a block, and leaves the neighbours", () => {
    receiveAll(pagesPacket({ block: 1, runs: [0, 1, 15, 1], zeros: [0, 1] }));
    expect(ram().equals(withPages(1, [0, 15], 0))).toBe(true);
    receiveAll(pagesPacket({ block: 0, runs: [0, 1, 31, 1], item: 1 }));
    expect(ram().length).toBe(FILE_BYTES);
    for (const page of [0, 33, 50]) {
      const guard = page * PAGE_BYTES;
      expect(
        ram()
          .subarray(guard, guard + PAGE_BYTES)
          .equals(before.subarray(guard, guard + PAGE_BYTES)),
      ).toBe(true);
    }
  });

  it("that comes again is acknowledged apart from those that come first, and counted once", () => {
    receiveAll(pagesPacket({ item: 0 }));
    const { acknowledgements } = receiveAll(
      pagesPacket({ item: 1, runs: [10, 1] }),
      pagesPacket({ item: 0 }),
      pagesPacket({ item: 2, runs: [11, 1] }),
    );
    const told = acknowledgements.map(ackOf).map(({ items, normalPages }) => ({ items: [...items], normalPages }));
    expect(told).toEqual([
      { items: [1], normalPages: 1 },
      { items: [0], normalPages: 3 },
      { items: [2], normalPages: 1 },
    ]);
    expect(destination.fence).toMatchObject({ pages: 5, normalPages: 5 });
  });

  it("of the device state stands at its offset, whatever the order", () => {
    receiveAll(
      slicePacket({ item: 1, offset: 100, bytes: Buffer.alloc(50, 2), compression: "zstd" }),
      slicePacket({ item: 0, offset: 0, bytes: Buffer.alloc(100, 1) }),
      slicePacket({ item: 1, offset: 100, bytes: Buffer.alloc(50, 2) }),
    );
    expect(deviceState().equals(Buffer.concat([Buffer.alloc(100, 1), Buffer.alloc(50, 2)]))).toBe(true);
    expect(appliedItems()).toEqual([0, 1]);
  });

  it("is acknowledged apart for each round, and each copy of an item again", () => {
    const { acknowledgements } = receiveAll(
      pagesPacket({ item: 1 }),
      pagesPacket({ item: 1 }),
      pagesPacket({ item: 2 }),
      pagesPacket({ round: 2, item: 9 }),
    );
    expect(acknowledgements.map((bytes) => [ackOf(bytes).round, [...ackOf(bytes).items]])).toEqual([
      [1, [1]],
      [1, [1]],
      [1, [2]],
      [2, [9]],
    ]);
    expect(destination.fence.dropped).toBe(0);
    expect(Fence.roundOf(destination.fence)).toBe(2);
    expect(appliedItems()).toEqual([9]);
  });

  it("comes in a burst: each acknowledgement holds as many items as one may", () => {
    const burst = Array.from({ length: 1100 }, (_, item) => pagesPacket({ item, runs: [item % 32, 1] }));
    const { acknowledgements } = receiveAll(...burst);
    expect(acknowledgements.map((bytes) => ackOf(bytes).items.length)).toEqual([1024, 76]);
  });
});

/** Each is whole, with the right checksum, and must not change a byte. */
const hostile: ReadonlyArray<readonly [string, () => Uint8Array]> = [
  ["of another migration", () => pagesPacket({ migration: "f".repeat(16) })],
  ["of an older epoch", () => pagesPacket({ epoch: EPOCH - 1 })],
  ["of a newer epoch", () => pagesPacket({ epoch: EPOCH + 1 })],
  ["whose item is beyond what a round can hold", () => pagesPacket({ item: destination.fence.itemsMax })],
  ["whose item is the greatest number there is", () => pagesPacket({ item: 0xffff_ffff })],
  ["of an unknown block", () => pagesPacket({ block: 2 })],
  ["of the last block there can be", () => pagesPacket({ block: 511 })],
  ["of a page right behind its block", () => pagesPacket({ runs: [32, 1] })],
  ["that leaves its block with its last page", () => pagesPacket({ runs: [0, 1, 30, 3] })],
  ["that leaves its block with a zero page", () => pagesPacket({ runs: [31, 2], zeros: [0, 1] })],
  ["of a page whose offset is beyond 2^32", () => pagesPacket({ block: 1, runs: [2 ** 32 - 2, 1] })],
  [
    "that unpacks to more than it says",
    () => pagesPacket({ compression: "zlib", payload: deflateSync(Buffer.alloc(4 * PAGE_BYTES)) }),
  ],
  [
    "that unpacks to less than it says",
    () => pagesPacket({ compression: "zlib", payload: deflateSync(Buffer.alloc(2 * PAGE_BYTES)) }),
  ],
  [
    "that unpacks to a byte too much",
    () => pagesPacket({ compression: "zstd", payload: zstdCompressSync(Buffer.alloc(3 * PAGE_BYTES + 1)) }),
  ],
  [
    "that unpacks to a byte too little",
    () => pagesPacket({ compression: "zstd", payload: zstdCompressSync(Buffer.alloc(3 * PAGE_BYTES - 1)) }),
  ],
  [
    "with bytes behind its zlib payload",
    () =>
      pagesPacket({
        compression: "zlib",
        payload: Buffer.concat([deflateSync(Buffer.alloc(3 * PAGE_BYTES)), Buffer.alloc(1)]),
      }),
  ],
  [
    "with a second zstd frame",
    () =>
      pagesPacket({
        compression: "zstd",
        payload: Buffer.concat([
          zstdCompressSync(Buffer.alloc(3 * PAGE_BYTES)),
          zstdCompressSync(Buffer.alloc(PAGE_BYTES)),
        ]),
      }),
  ],
  [
    "whose pages come in two zstd frames",
    () =>
      pagesPacket({
        compression: "zstd",
        payload: Buffer.concat([
          zstdCompressSync(Buffer.alloc(PAGE_BYTES)),
          zstdCompressSync(Buffer.alloc(2 * PAGE_BYTES)),
        ]),
      }),
  ],
  [
    "with a payload where all pages are zero",
    () => pagesPacket({ compression: "zlib", zeros: [0, 1, 2], payload: deflateSync(Buffer.alloc(1)) }),
  ],
  ["whose payload is noise", () => pagesPacket({ compression: "zstd", payload: randomBytes(500) })],
  ["whose payload is empty", () => pagesPacket({ compression: "zlib", payload: new Uint8Array(0) })],
  [
    "that is a zlib bomb",
    () => pagesPacket({ compression: "zlib", payload: deflateSync(Buffer.alloc(64 * 1024 ** 2)) }),
  ],
  [
    "that is a zstd bomb",
    () => pagesPacket({ compression: "zstd", payload: zstdCompressSync(Buffer.alloc(64 * 1024 ** 2)) }),
  ],
  ["of a device stream that was not announced", () => slicePacket({ stream: 1 })],
  ["of device state beyond the limit", () => slicePacket({ offset: DEVICE_STATE_BYTES_MAX - 50 })],
  ["of device state at an offset of 2^53 - 1", () => slicePacket({ offset: 2 ** 53 - 1 })],
  ["of device state before the beginning", () => slicePacket({ offset: -100 })],
  [
    "of a slice that unpacks to more than it says",
    () => slicePacket({ compression: "zstd", payload: zstdCompressSync(Buffer.alloc(101)) }),
  ],
  ["of a slice longer than a packet holds", () => slicePacket({ bytes: Buffer.alloc(SLICE_BYTES_MAX + 1) })],
  ["of overlapping runs", () => forged(pagesPacket(), (view) => view.setUint32(72, 4, true))],
  ["that says it has more pages than runs", () => forged(pagesPacket(), (view) => view.setUint16(38, 4, true))],
  [
    "that says its payload is longer than it is",
    () => forged(pagesPacket(), (view) => view.setUint32(44, 1 << 20, true)),
  ],
  [
    "whose checksum is wrong",
    () => {
      const bytes = pagesPacket();
      bytes[200]! ^= 1;
      return bytes;
    },
  ],
  ["that is empty", () => new Uint8Array(0)],
  ["that is noise", () => randomBytes(1000)],
  ["cut short", () => pagesPacket().subarray(0, 900)],
];

describe("a packet", () => {
  it.each(hostile)("%s changes nothing, is not acknowledged, and is counted", (_, make) => {
    const packet = make();
    const started = performance.now();
    const { acknowledgements } = receiveAll(packet);
    expect(performance.now() - started).toBeLessThan(1000);
    expect(acknowledgements).toEqual([]);
    expect(ram().equals(before)).toBe(true);
    expect(deviceState().length).toBe(0);
    expect(destination.fence).toMatchObject({ dropped: 1, pages: 0 });
    expect(appliedItems()).toEqual([]);
  });

  it.each(hostile)("%s keeps no good one from being applied, before it or after it", (_, make) => {
    const { acknowledgements } = receiveAll(
      pagesPacket({ item: 1, runs: [1, 1] }),
      make(),
      pagesPacket({ item: 2, runs: [2, 1] }),
    );
    expect([...ackOf(acknowledgements[0]).items]).toEqual([1, 2]);
    expect(ram().equals(withPages(0, [1, 2], 0xab))).toBe(true);
  });

  it("of an older round is dropped once a newer one was seen, and its copy of a page with it", () => {
    receiveAll(pagesPacket({ round: 5, runs: [3, 1] }));
    const { acknowledgements } = receiveAll(pagesPacket({ round: 4, runs: [3, 1, 9, 1], zeros: [0, 1] }));
    expect(acknowledgements).toEqual([]);
    expect(ram().equals(withPages(0, [3], 0xab))).toBe(true);
  });

  it("that cannot be applied does not close the round that is under way", () => {
    receiveAll(pagesPacket({ round: 1, item: 0, runs: [1, 1] }));
    receiveAll(
      pagesPacket({ round: 0xffff_ffff, block: 9 }),
      pagesPacket({ round: 9, runs: [32, 1] }),
      slicePacket({ round: 9, stream: 1 }),
    );
    expect(Fence.roundOf(destination.fence)).toBe(1);
    expect(appliedItems()).toEqual([0]);
    const { acknowledgements } = receiveAll(pagesPacket({ round: 1, item: 1, runs: [2, 1] }));
    expect([...ackOf(acknowledgements[0]).items]).toEqual([1]);
  });

  it.each(["Preparing", "Loading", "Committing", "Starting", "Closing", "Running", "Discarding", "Failed"] as const)(
    "changes nothing while the destination is %s: the memory is not ours to write",
    (phase) => {
      destination.phase = { _tag: phase } as Destination["phase"];
      const { acknowledgements } = receiveAll(pagesPacket(), slicePacket());
      expect(acknowledgements).toEqual([]);
      expect(ram().equals(before)).toBe(true);
    },
  );

  it("never makes the file longer or shorter, nor needs more memory than a packet, however many bombs come", () => {
    const bomb = pagesPacket({ compression: "zstd", payload: zstdCompressSync(Buffer.alloc(64 * 1024 ** 2)) });
    const rss = process.memoryUsage.rss();
    receiveAll(...Array.from({ length: 200 }, () => bomb));
    expect(process.memoryUsage.rss() - rss).toBeLessThan(64 * 1024 ** 2);
    expect(statSync(ramPath).size).toBe(FILE_BYTES);
  });
});

describe("a receiver", () => {
  it("leaves the device state for a successor when it is closed, and nothing when that is asked of it", () => {
    receiveAll(slicePacket());
    const path = receiver.deviceStatePath;
    const gathered = deviceState();
    receiver.close();
    receiver = openReceiver([], path);
    expect(deviceState().equals(gathered)).toBe(true);
    receiver.removeDeviceState();
    expect(() => statSync(path)).toThrow(/ENOENT/);
  });

  it("whose memory is missing opens nothing, and says so", () => {
    const gone = {
      name: "ram",
      lengthBytes: PAGE_BYTES,
      hostPageBytes: PAGE_BYTES,
      path: join(directory, "no"),
      fileOffset: 0,
    };
    expect(() => openReceiver([gone], join(directory, "other"))).toThrow(/ENOENT/);
    expect(() => statSync(join(directory, "other"))).toThrow(/ENOENT/);
  });

  it("whose memory is shorter than its block opens nothing", () => {
    const long = {
      name: "ram",
      lengthBytes: FILE_BYTES,
      hostPageBytes: PAGE_BYTES,
      path: ramPath,
      fileOffset: PAGE_BYTES,
    };
    expect(() => openReceiver([long], join(directory, "other"))).toThrow(/EOVERFLOW/);
  });
});
