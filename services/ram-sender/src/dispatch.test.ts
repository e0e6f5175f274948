import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openRamReader, PAGE_BYTES, type RamBlock, type RamReader } from "@godwit/memory";
import type { Ledger } from "@godwit/multifd";
import {
  decodeWorkItem,
  NO_SLOT,
  PARAMETER_DEFAULTS,
  type Parameters,
  proposeCapabilities,
  type WorkItem,
  type XbzrleItem,
} from "@godwit/protocol";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Source } from "./decisions/index.ts";
import { makeSource } from "./decisions/source.ts";
import { workItem } from "./dispatch.ts";

const PAGES = 64;
const FILE_OFFSET = 2 * PAGE_BYTES;
const NOW = 1_700_000_000_000;

let directory: string;
let block: RamBlock;
let reader: RamReader;
beforeAll(() => {
  directory = mkdtempSync("/dev/shm/godwit-dispatch-");
  const path = join(directory, "ram");
  const memory = Buffer.alloc(FILE_OFFSET + PAGES * PAGE_BYTES, 0xff);
  // Every third page of the block is zero.
  for (let page = 0; page < PAGES; page += 3)
    memory.fill(0, FILE_OFFSET + page * PAGE_BYTES, FILE_OFFSET + (page + 1) * PAGE_BYTES);
  writeFileSync(path, memory);
  block = { name: "ram", lengthBytes: PAGES * PAGE_BYTES, hostPageBytes: PAGE_BYTES, path, fileOffset: FILE_OFFSET };
  reader = openRamReader(block);
});
afterAll(() => {
  reader.close();
  rmSync(directory, { recursive: true });
});

const sourceWith = (parameters: Partial<Parameters>): Source => {
  const source = makeSource({
    migration: "0123456789abcdef",
    guest: "vm1",
    node: "a",
    incarnation: "a".repeat(16),
    destination: "b",
    authority: { term: 1, coordinator: null },
    attempt: 1,
    parameters: { ...PARAMETER_DEFAULTS, ...parameters },
    capabilities: proposeCapabilities({}) as never,
    itemPagesMax: 64,
    now: NOW,
  });
  source.epoch = 9;
  source.ledger.round = 4;
  return source;
};
const dispatched = (
  parameters: Partial<Parameters>,
  work: Ledger.Work,
  readers: ReadonlyArray<RamReader> = [],
  xbzrle: XbzrleItem | null = null,
): WorkItem => {
  const item: Ledger.Item = {
    item: 17,
    work,
    bytes: 0,
    channel: 3,
    channelEpoch: 5,
    firstSentAt: 0,
    sentAt: 0,
    attempts: 1,
    refusals: 0,
  };
  const effect = { _tag: "Dispatch", worker: "w", item, channel: 3, channelEpoch: 5, xbzrle } as const;
  const decoded = decodeWorkItem(workItem(sourceWith(parameters), effect, [block], readers, NOW));
  if (decoded.kind === "malformed") throw new Error(decoded.reason);
  return decoded;
};
const pagesWork = (...runs: number[]): Ledger.Work => ({
  kind: "pages",
  block: 0,
  runs: Uint32Array.from(runs),
  pages: runs.reduce((sum, count, index) => sum + (index % 2 === 1 ? count : 0), 0),
});

describe("what is handed out", () => {
  it("says whose it is, where the block stands, and until when it counts", () => {
    expect(dispatched({}, pagesWork(1, 2, 9, 1))).toMatchObject({
      kind: "pages",
      migration: "0123456789abcdef",
      epoch: 9,
      round: 4,
      item: 17,
      channel: 3,
      channelEpoch: 5,
      block: 0,
      fileOffset: FILE_OFFSET,
      runs: Uint32Array.of(1, 2, 9, 1),
      zeroPages: "worker",
    });
    const { deadline } = dispatched({}, pagesWork(0, 1));
    expect(deadline).toBeGreaterThan(NOW + 1000);
    expect(deadline).toBeLessThanOrEqual(NOW + 60_000);
  });

  it("names a slice of the device state by its place", () => {
    expect(dispatched({}, { kind: "slice", offset: 262_144, bytes: 77 })).toMatchObject({
      kind: "slice",
      stream: 0,
      offset: 262_144,
      bytes: 77,
    });
  });

  it.each([
    ["none", 0],
    ["zlib", 7],
    ["zstd", 13],
  ] as const)("asks for compression %s at its own level", (compression, level) => {
    const parameters = {
      "multifd-compression": compression,
      "multifd-zlib-level": compression === "zlib" ? level : 2,
      "multifd-zstd-level": compression === "zlib" ? 3 : level,
    };
    expect(dispatched(parameters, pagesWork(0, 1))).toMatchObject({ compression, level });
  });

  it("is valid at every level that a parameter may have", () => {
    for (let level = 0; level <= 9; level++)
      dispatched({ "multifd-compression": "zlib", "multifd-zlib-level": level }, pagesWork(0, 1));
    for (let level = 0; level <= 20; level++) {
      dispatched({ "multifd-compression": "zstd", "multifd-zstd-level": level }, pagesWork(0, 1));
      dispatched({ "multifd-compression": "none", "multifd-zstd-level": level }, pagesWork(0, 1));
    }
  });

  it("leaves zero pages to nobody, to the worker, or says itself which they are", () => {
    expect(dispatched({ "zero-page-detection": "none" }, pagesWork(0, 4), [reader])).toMatchObject({
      zeroPages: "none",
    });
    expect(dispatched({ "zero-page-detection": "multifd" }, pagesWork(0, 4), [reader])).toMatchObject({
      zeroPages: "worker",
    });
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(PAGES - 1), { minLength: 1, maxLength: 40 }), (pages) => {
        pages.sort((a, b) => a - b);
        const item = dispatched({ "zero-page-detection": "legacy" }, pagesWork(...pages.flatMap((page) => [page, 1])), [
          reader,
        ]);
        if (item.kind !== "pages" || typeof item.zeroPages === "string") throw new Error("no map");
        const map = item.zeroPages;
        pages.forEach((page, index) => {
          expect((map[index >>> 3]! & (1 << (index & 7))) !== 0, `page ${page}`).toBe(page % 3 === 0);
        });
      }),
      { numRuns: 30 },
    );
  });

  it("says where its pages are kept, and of which the destination has what is kept", () => {
    const xbzrle = { slots: Uint32Array.of(7, NO_SLOT, 9), held: Uint8Array.of(0b100) };
    expect(dispatched({}, pagesWork(1, 3), [], xbzrle)).toMatchObject({ xbzrle });
    expect(dispatched({}, pagesWork(1, 3))).toMatchObject({ xbzrle: null });
  });

  it("fails where the memory cannot be read, and hands out nothing then", () => {
    const work = pagesWork(PAGES, 1);
    expect(() => dispatched({ "zero-page-detection": "legacy" }, work, [reader])).toThrow(RangeError);
  });
});
