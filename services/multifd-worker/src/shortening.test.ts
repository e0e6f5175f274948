/** Pages that take fewer bytes than they have: copies of others, and deltas to what was sent before. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { addressExport, exportBlocks, exportSentPages, PAGE_BYTES, sentPagesExport } from "@godwit/memory";
import {
  type Acknowledgement,
  COMPRESSIONS,
  decodeAcknowledgement,
  decodePacket,
  NO_SLOT,
  type PagesItem,
  type PagesPacket,
  type XbzrleItem,
} from "@godwit/protocol";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { receive } from "../../loader/src/receiving.ts";
import {
  blockIn,
  type Content,
  content,
  EPOCH,
  FILE_BYTES,
  fillPage,
  guestMemory,
  MIGRATION,
  pagesItem,
  receiving,
} from "./packed-guest.conformance.ts";
import { makePacker, PACKET_BYTES_MAX, type Packer } from "./packing.ts";

let directory: string;
let runtime: string;
let sourcePath: string;
let destinationPath: string;
let packer: Packer;
const buffer = new Uint8Array(PACKET_BYTES_MAX);
const pack = (item: PagesItem): Uint8Array => packer.pack(item, "b", buffer).slice();

beforeEach(() => {
  directory = mkdtempSync("/dev/shm/godwit-shortening-");
  runtime = join(directory, "run");
  sourcePath = join(directory, "source");
  destinationPath = join(directory, "destination");
  packer = makePacker(runtime);
  addressExport(runtime, "ram", MIGRATION, "b");
  writeFileSync(destinationPath, Buffer.alloc(FILE_BYTES));
  exportBlocks(runtime, MIGRATION, EPOCH, [blockIn(sourcePath)]);
});
afterEach(() => {
  packer.close();
  rmSync(directory, { recursive: true, force: true });
});

describe("what a destination holds after short pages", () => {
  it("is the source's memory when pages are dirtied again and again, as deltas and as copies", () => {
    const contents = fc.array(content, { minLength: 64, maxLength: 64 });
    /** Pages that a round writes, each in a byte or as a whole. */
    const writes = fc.array(fc.tuple(fc.nat(63), fc.nat(PAGE_BYTES - 1), fc.option(content)), { maxLength: 30 });
    const rounds = fc.array(writes, { minLength: 2, maxLength: 6 });
    let deltas = 0;
    let copies = 0;
    fc.assert(
      fc.property(contents, rounds, fc.constantFrom(...COMPRESSIONS), (pages, allWrites, compression) => {
        const source = guestMemory(pages);

        writeFileSync(destinationPath, Buffer.alloc(FILE_BYTES));
        writeFileSync(sourcePath, source);
        packer.close();
        exportSentPages(runtime, MIGRATION, EPOCH, 64);
        const { receiver, destination } = receiving(destinationPath);
        allWrites.forEach((round, index) => {
          for (const [page, at, whole] of round) {
            if (whole !== null) fillPage(source, page + 1, whole);
            else source[(page + 1) * PAGE_BYTES + at]! ^= 1;
          }
          writeFileSync(sourcePath, source, { flag: "r+" });
          const runs = Uint32Array.of(0, 64);
          const slots = Uint32Array.from({ length: 64 }, (_, page) => (page % 7 === 6 ? NO_SLOT : page));
          // From the second round on all are held that have a slot.
          const held = new Uint8Array(8);
          for (const [page, slot] of slots.entries())
            if (index > 0 && slot !== NO_SLOT) held[page >>> 3]! |= 1 << (page & 7);
          const packet = pack(pagesItem({ runs, compression, round: index + 1, xbzrle: { slots, held } }));
          const { short } = decodePacket(packet) as PagesPacket;
          deltas += short.filter(({ how }) => how === "delta").length;
          copies += short.filter(({ how }) => how === "copy").length;
          expect(receive(destination, receiver, [{ subject: "s", data: packet }]).complaint).toBeNull();
          const [from, to] = [PAGE_BYTES, 65 * PAGE_BYTES];
          expect(readFileSync(destinationPath).subarray(from, to).equals(source.subarray(from, to))).toBe(true);
        });
        receiver.close();
      }),
      { numRuns: 20 },
    );
    expect(deltas).toBeGreaterThan(100);
    expect(copies).toBeGreaterThan(10);
  });

  it("is as it was when a slot is not what it has: it says so, and takes the pages whole", () => {
    const source = guestMemory(Array.from({ length: 8 }, (_, seed) => ({ kind: "noise", seed })));
    writeFileSync(sourcePath, source);
    writeFileSync(destinationPath, Buffer.alloc(FILE_BYTES));
    exportSentPages(runtime, MIGRATION, EPOCH, 8);
    const { receiver, destination } = receiving(destinationPath);
    const runs = Uint32Array.of(0, 8);
    const slots = Uint32Array.from({ length: 8 }, (_, page) => page);
    const arrive = (round: number, item: number, xbzrle: XbzrleItem | null) =>
      receive(destination, receiver, [
        { subject: "s", data: pack(pagesItem({ runs, round, item, xbzrle })) },
      ]).acknowledgements.map((bytes) => decodeAcknowledgement(bytes) as Acknowledgement);
    arrive(1, 0, { slots, held: new Uint8Array(1) });
    const before = readFileSync(destinationPath);
    // A worker that slept writes page 3 into its slot, long after its item has gone to another one.
    source[4 * PAGE_BYTES]! ^= 0xff;
    writeFileSync(sourcePath, source);
    pack(
      pagesItem({
        runs: Uint32Array.of(3, 1),
        round: 1,
        item: 1,
        xbzrle: { slots: Uint32Array.of(3), held: Uint8Array.of(0) },
      }),
    );
    for (let page = 0; page < 8; page++) source[(page + 1) * PAGE_BYTES + 7]! ^= 0xff;
    writeFileSync(sourcePath, source);
    const [answer] = arrive(2, 0, { slots, held: Uint8Array.of(0xff) });
    expect(answer).toMatchObject({ kind: "differs", items: Uint32Array.of(0), differing: Uint8Array.of(0b1000) });
    expect(readFileSync(destinationPath).equals(before)).toBe(true);
    expect(arrive(2, 0, null)).toMatchObject([{ kind: "applied", xbzrle: { pages: 0 } }]);
    const [from, to] = [PAGE_BYTES, 9 * PAGE_BYTES];
    expect(readFileSync(destinationPath).subarray(from, to).equals(source.subarray(from, to))).toBe(true);
    receiver.close();
  });
});

describe("a packer of pages that are the same", () => {
  it("sends each once, whatever lies between them, and none for another that is only alike", () => {
    const noise = (seed: number): Content => ({ kind: "noise", seed });
    writeFileSync(
      sourcePath,
      guestMemory([noise(1), noise(2), { kind: "zero", seed: 0 }, noise(1), noise(2), noise(3), noise(3)]),
    );
    const almost = readFileSync(sourcePath);
    // In a byte that no sample looks at.
    almost[7 * PAGE_BYTES + 1000]! ^= 1;
    writeFileSync(sourcePath, almost);
    const packet = decodePacket(pack(pagesItem({ runs: Uint32Array.of(0, 7) }))) as PagesPacket;
    expect(packet.short).toEqual([
      { how: "copy", page: 3, of: 0 },
      { how: "copy", page: 4, of: 1 },
    ]);
    expect(packet).toMatchObject({ normalPages: 6, rawBytes: 4 * PAGE_BYTES, overflow: 0 });
  });

  it("counts a page that changed all over among those that overflow", () => {
    const noise = (seed: number): Content => ({ kind: "noise", seed });
    writeFileSync(sourcePath, guestMemory([noise(1)]));
    exportSentPages(runtime, MIGRATION, EPOCH, 1);
    pack(pagesItem({ xbzrle: { slots: Uint32Array.of(0), held: Uint8Array.of(0) } }));
    writeFileSync(sourcePath, guestMemory([noise(2)]), { flag: "r+" });
    const packet = decodePacket(pack(pagesItem({ xbzrle: { slots: Uint32Array.of(0), held: Uint8Array.of(1) } })));
    expect(packet).toMatchObject({ short: [], overflow: 1, rawBytes: PAGE_BYTES });
  });
});

describe("a forged work item", () => {
  it("that names a slot beyond the cache, or a cache that is not there, is refused, and makes no file longer", () => {
    writeFileSync(sourcePath, guestMemory([]));
    const item = pagesItem({ xbzrle: { slots: Uint32Array.of(8), held: Uint8Array.of(0) } });
    expect(() => pack(item)).toThrow(/ENOENT/);
    exportSentPages(runtime, MIGRATION, EPOCH, 8);
    expect(() => pack(item)).toThrow(/slot 8 of 8/);
    expect(() => pack({ ...item, xbzrle: { slots: Uint32Array.of(2 ** 31), held: Uint8Array.of(1) } })).toThrow(/slot/);
    expect(statSync(sentPagesExport(runtime, MIGRATION, EPOCH)).size).toBe(8 * PAGE_BYTES);
  });
});
