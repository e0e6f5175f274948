import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { addressExport, blockExport, deviceStateExport, exportBlocks, PAGE_BYTES } from "@godwit/memory";
import {
  COMPRESSIONS,
  decodePacket,
  decodeWorkItem,
  encodeWorkItem,
  PACKET_PAGES_MAX,
  type PagesItem,
  type PagesPacket,
  SLICE_BYTES_MAX,
  type SliceItem,
  type WorkItem,
} from "@godwit/protocol";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import * as Fence from "../../loader/src/decisions/fence.ts";
import { receive } from "../../loader/src/receiving.ts";
import {
  BLOCK_PAGES,
  blockIn,
  type Content,
  content,
  EPOCH,
  FILE_BYTES,
  guestMemory,
  MIGRATION,
  pagesItem,
  receiving,
  shared,
} from "./packed-guest.conformance.ts";
import { makePacker, PACKET_BYTES_MAX, type Packer } from "./packing.ts";

let directory: string;
let runtime: string;
let sourcePath: string;
let packer: Packer;
const buffer = new Uint8Array(PACKET_BYTES_MAX);

beforeEach(() => {
  directory = mkdtempSync("/dev/shm/godwit-packing-");
  runtime = join(directory, "run");
  sourcePath = join(directory, "source");
  packer = makePacker(runtime);
  addressExport(runtime, "ram", MIGRATION, "b");
});
afterEach(() => {
  packer.close();
  rmSync(directory, { recursive: true, force: true });
});

const sliceItem = (change: Partial<SliceItem>): SliceItem => ({
  kind: "slice",
  ...shared,
  item: 0,
  stream: 0,
  offset: 0,
  bytes: 100,
  ...change,
});
/** As it comes off the wire. */
const pack = (item: WorkItem): Uint8Array => {
  const decoded = decodeWorkItem(encodeWorkItem(item));
  if (decoded.kind === "malformed") throw new Error(decoded.reason);
  return packer.pack(decoded, "b", buffer).slice();
};

/** Any arrangement of runs within the block, cut into items as a sender may: at most PACKET_PAGES_MAX pages each. */
const arrangement: fc.Arbitrary<ReadonlyArray<Uint32Array>> = fc
  .array(fc.tuple(fc.nat(12), fc.integer({ min: 1, max: 40 })), { minLength: 1, maxLength: 12 })
  .map((shapes) => {
    const items: number[][] = [[]];
    let pages = 0;
    let at = 0;
    for (const [gap, count] of shapes) {
      at += gap;
      const length = Math.min(count, BLOCK_PAGES - at);
      if (length <= 0) break;
      if (pages + length > PACKET_PAGES_MAX) {
        items.push([]);
        pages = 0;
      }
      items[items.length - 1]!.push(at, length);
      pages += length;
      at += length;
    }
    return items.filter((runs) => runs.length > 0).map((runs) => Uint32Array.from(runs));
  });

const pagesOf = (runs: Uint32Array): number[] => {
  const pages: number[] = [];
  for (let r = 0; r < runs.length; r += 2) for (let page = 0; page < runs[r + 1]!; page++) pages.push(runs[r]! + page);
  return pages;
};
/** As a sender with `zero-page-detection: legacy` says it. */
const zeroMapOf = (runs: Uint32Array, contents: ReadonlyArray<Content>): Uint8Array => {
  const pages = pagesOf(runs);
  const map = new Uint8Array((pages.length + 7) >>> 3);
  pages.forEach((page, index) => {
    if (contents[page]!.kind === "zero") map[index >>> 3]! |= 1 << (index & 7);
  });
  return map;
};

describe("what a worker packs and a loader applies", () => {
  const modes = ["none", "worker", "given"] as const;
  it.each(modes.flatMap((mode) => COMPRESSIONS.map((compression) => [mode, compression] as const)))(
    "is the source's memory, page for page, with zero pages looked for by %s and compression %s",
    (mode, compression) => {
      const contents = fc.array(content, { minLength: BLOCK_PAGES, maxLength: BLOCK_PAGES });
      const prior = fc.array(content, { minLength: BLOCK_PAGES, maxLength: BLOCK_PAGES });
      fc.assert(
        fc.property(contents, prior, arrangement, (pages, priorPages, itemRuns) => {
          const source = guestMemory(pages);
          writeFileSync(sourcePath, source);
          const destinationPath = join(directory, "destination");
          const before = guestMemory(priorPages);
          writeFileSync(destinationPath, before);
          exportBlocks(runtime, MIGRATION, EPOCH, [blockIn(sourcePath)]);
          const { receiver, destination } = receiving(destinationPath);
          const items = itemRuns.map((runs, item) =>
            pagesItem({
              item,
              runs,
              compression,
              level: 1,
              zeroPages: mode === "given" ? zeroMapOf(runs, pages) : mode,
            }),
          );
          const { acknowledgements, complaint } = receive(
            destination,
            receiver,
            items.map((item) => ({ subject: "s", data: pack(item) })),
          );
          receiver.close();
          // What was sent is the source's; all else, around it and in the same file, is as it was.
          const expected = Buffer.from(before);
          for (const page of itemRuns.flatMap(pagesOf))
            source.copy(expected, (page + 1) * PAGE_BYTES, (page + 1) * PAGE_BYTES, (page + 2) * PAGE_BYTES);
          expect(complaint).toBeNull();
          expect(acknowledgements).toHaveLength(1);
          for (const { item } of items) expect(Fence.isApplied(destination.fence, { round: 1, item })).toBe(true);
          expect(readFileSync(destinationPath).equals(expected)).toBe(true);
          expect(readFileSync(sourcePath).equals(source)).toBe(true);
        }),
        { numRuns: 12 },
      );
    },
  );

  it("is the device state, slice for slice, in any order and compression", () => {
    const length = 2 * SLICE_BYTES_MAX + 12_345;
    const state = Buffer.alloc(length);
    for (let i = 0; i < length; i++) state[i] = i < 300_000 ? Math.imul(i + 1, 2654435761) >>> 13 : i >> 10;
    writeFileSync(sourcePath, guestMemory([]));
    exportBlocks(runtime, MIGRATION, EPOCH, [blockIn(sourcePath)]);
    writeFileSync(deviceStateExport(runtime, MIGRATION, EPOCH), state);
    const destinationPath = join(directory, "destination");
    writeFileSync(destinationPath, Buffer.alloc(FILE_BYTES));
    for (const compression of COMPRESSIONS) {
      const { receiver, destination } = receiving(destinationPath);
      const slices = [2, 0, 1].map((n) => {
        const offset = n * SLICE_BYTES_MAX;
        return sliceItem({ item: n, offset, bytes: Math.min(SLICE_BYTES_MAX, length - offset), compression });
      });
      receive(
        destination,
        receiver,
        slices.map((item) => ({ subject: "s", data: pack(item) })),
      );
      expect(readFileSync(receiver.deviceStatePath).equals(state)).toBe(true);
      receiver.close();
    }
  });
});

describe("a packer", () => {
  const decoded = (item: WorkItem): PagesPacket => {
    const packet = decodePacket(pack(item));
    if (packet.kind !== "pages") throw new Error(packet.kind);
    return packet;
  };
  const open = (pages: ReadonlyArray<Content>): void => {
    writeFileSync(sourcePath, guestMemory(pages));
    exportBlocks(runtime, MIGRATION, EPOCH, [blockIn(sourcePath)]);
  };
  const zero: Content = { kind: "zero", seed: 0 };
  const noise: Content = { kind: "noise", seed: 1 };

  it("sends nothing for a zero page but the word that it is one", () => {
    open([zero, noise, zero, zero]);
    const runs = Uint32Array.of(0, 4);
    expect(decoded(pagesItem({ runs }))).toMatchObject({ pages: 4, normalPages: 1, rawBytes: PAGE_BYTES });
    expect(decoded(pagesItem({ runs })).zeroMap).toEqual(Uint8Array.of(0b1101));
    expect(decoded(pagesItem({ runs, zeroPages: "none" }))).toMatchObject({ normalPages: 4 });
    // The producer's word counts: what it looked at may have been written since, and is then dirty again.
    expect(decoded(pagesItem({ runs, zeroPages: Uint8Array.of(0b0001) }))).toMatchObject({ normalPages: 3 });
  });

  it("finds a page of which only the last byte is set", () => {
    open([{ kind: "one byte", seed: PAGE_BYTES - 1 }, { kind: "one byte", seed: 0 }, zero]);
    expect(decoded(pagesItem({ runs: Uint32Array.of(0, 3) })).zeroMap).toEqual(Uint8Array.of(0b100));
  });

  it("sends as it is what compression would make longer", () => {
    open(Array.from({ length: 64 }, (_, seed) => ({ kind: "noise", seed })));
    for (const compression of ["zlib", "zstd"] as const)
      expect(decoded(pagesItem({ runs: Uint32Array.of(0, 64), compression })).compression).toBe("none");
  });

  it("takes a payload for one that does not compress when the pages that it tries do not", () => {
    open(Array.from({ length: 64 }, (_, page) => ({ kind: page % 21 === 0 ? "noise" : "one byte", seed: page })));
    expect(decoded(pagesItem({ runs: Uint32Array.of(0, 64), compression: "zstd" })).compression).toBe("none");
    // Of a short one everything is tried.
    expect(decoded(pagesItem({ runs: Uint32Array.of(0, 15), compression: "zstd" })).compression).toBe("zstd");
  });

  it("fits its buffer with the largest item there is", () => {
    open(Array.from({ length: 128 }, (_, seed) => ({ kind: "noise", seed })));
    const runs = Uint32Array.from({ length: 2 * PACKET_PAGES_MAX }, (_, i) => (i % 2 === 0 ? i : 1));
    expect(pack(pagesItem({ runs, zeroPages: "none" })).length).toBe(PACKET_BYTES_MAX);
  });

  it("reads what the memory is now, not what it was when the file was opened", () => {
    open([zero]);
    expect(decoded(pagesItem({}))).toMatchObject({ normalPages: 0 });
    writeFileSync(sourcePath, guestMemory([noise]), { flag: "r+" });
    expect(decoded(pagesItem({}))).toMatchObject({ normalPages: 1 });
  });
});

describe("a forged work item", () => {
  beforeEach(() => {
    writeFileSync(sourcePath, guestMemory(Array.from({ length: BLOCK_PAGES }, (_, seed) => ({ kind: "noise", seed }))));
    exportBlocks(runtime, MIGRATION, EPOCH, [blockIn(sourcePath)]);
    writeFileSync(deviceStateExport(runtime, MIGRATION, EPOCH), Buffer.alloc(1000, 7));
  });

  it.each([
    ["names a migration that is not exported", { migration: "f".repeat(16) }],
    ["names another epoch", { epoch: EPOCH + 1 }],
    ["names a block that is not exported", { block: 1 }],
    ["names pages behind the end of the file", { runs: Uint32Array.of(BLOCK_PAGES + 1, 1) }],
    ["leaves the file with its last page", { runs: Uint32Array.of(BLOCK_PAGES, 2) }],
    ["names the last page there can be", { runs: Uint32Array.of(0xffff_ffff, 1) }],
    ["puts the block behind the end of its file", { fileOffset: FILE_BYTES }],
    ["puts the block at 2^53 - 1", { fileOffset: 2 ** 53 - 1 }],
  ] satisfies ReadonlyArray<readonly [string, Partial<PagesItem>]>)("that %s is refused", (_, change) => {
    expect(() => pack(pagesItem(change))).toThrow();
  });

  it.each([
    ["asks for device state that is not there", { epoch: EPOCH + 1 }],
    ["asks for more device state than there is", { bytes: 1001 }],
    ["begins behind the end of the device state", { offset: 1000, bytes: 1 }],
    ["begins far behind the end of the device state", { offset: 200 * 1024 ** 2 }],
  ] satisfies ReadonlyArray<readonly [string, Partial<SliceItem>]>)("that %s is refused", (_, change) => {
    expect(() => pack(sliceItem(change))).toThrow();
  });

  it("changes nothing for the true ones that come after it", () => {
    const right = pack(pagesItem({ runs: Uint32Array.of(5, 2), zeroPages: "none" }));
    packer.close();
    packer = makePacker(runtime);
    // The first item of a block decides nothing about where the block stands.
    for (const fileOffset of [0, 1, 7 * PAGE_BYTES, FILE_BYTES, 2 ** 53 - 1]) {
      try {
        pack(pagesItem({ fileOffset, zeroPages: "none" }));
      } catch {
        // Refused, or served with what stands there: both are fine.
      }
      expect(pack(pagesItem({ runs: Uint32Array.of(5, 2), zeroPages: "none" }))).toEqual(right);
    }
  });

  it("cannot keep files open without end", () => {
    const blocks = Array.from({ length: 100 }, () => blockIn(sourcePath));
    exportBlocks(runtime, MIGRATION, EPOCH, blocks);
    const open = (): number => readdirSync("/proc/self/fd").length;
    const before = open();
    for (let block = 0; block < 100; block++) pack(pagesItem({ block }));
    expect(open() - before).toBeLessThanOrEqual(64);
    packer.close();
    expect(open()).toBeLessThanOrEqual(before);
  });

  it("is the last that keeps memory from being freed for seconds only, while others are asked for all the time", () => {
    const open = (): number => readdirSync("/proc/self/fd").length;
    const before = open();
    vi.useFakeTimers();
    try {
      packer.close();
      packer = makePacker(runtime);
      exportBlocks(runtime, MIGRATION, EPOCH, [blockIn(sourcePath), blockIn(sourcePath)]);
      for (const block of [0, 1]) pack(pagesItem({ block }));
      expect(open()).toBe(before + 2);
      for (let second = 0; second < 6; second++) {
        pack(pagesItem({ block: 1 }));
        vi.advanceTimersByTime(1000);
      }
      expect(open()).toBe(before + 1);
      vi.advanceTimersByTime(5000);
      expect(open()).toBe(before);
      expect(pack(pagesItem({ block: 0 })).length).toBeGreaterThan(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it("does not end the worker when the memory is cut short under it: the item is refused", () => {
    pack(pagesItem({}));
    truncateSync(sourcePath, 10 * PAGE_BYTES);
    expect(() => pack(pagesItem({ runs: Uint32Array.of(20, 1) }))).toThrow(/EOVERFLOW/);
    expect(pack(pagesItem({ runs: Uint32Array.of(2, 1) })).length).toBeGreaterThan(0);
  });

  it("leaves for the node that the migration goes to, and for no other, whoever asks", () => {
    exportBlocks(runtime, MIGRATION, EPOCH, [blockIn(sourcePath)]);
    expect(packer.pack(pagesItem({}), "b", buffer).length).toBeGreaterThan(0);
    for (const destination of ["c", "", "b/../b", "*"])
      expect(() => packer.pack(pagesItem({}), destination, buffer)).toThrow(/does not go from here to node/);
    // Of VFIO devices the agent says it.
    expect(() => packer.pack(sliceItem({ stream: 1 }), "b", buffer)).toThrow(/does not go from here/);
  });

  it("reads nothing through its numbers but what was exported", () => {
    expect(blockExport(runtime, MIGRATION, EPOCH, 0).startsWith(join(runtime, "ram", MIGRATION))).toBe(true);
    expect(() => pack(pagesItem({ migration: "../../../../etc/" }))).toThrow();
  });
});
