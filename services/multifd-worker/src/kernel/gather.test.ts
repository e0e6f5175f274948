import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openRamReader, PAGE_BYTES, type RamReader } from "@godwit/memory";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { gatherPages } from "./gather.ts";

const PAGES = 64;
const GUARD = 0xee;
/** Odd pages hold their number, even ones are zero. */
const memory = Buffer.alloc(PAGES * PAGE_BYTES);
for (let page = 1; page < PAGES; page += 2) memory.fill(page, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);

let directory: string;
let reader: RamReader;
beforeAll(() => {
  directory = mkdtempSync("/dev/shm/godwit-gather-");
  const path = join(directory, "ram");
  writeFileSync(path, memory);
  reader = openRamReader({ name: "ram", lengthBytes: memory.length, hostPageBytes: PAGE_BYTES, path, fileOffset: 0 });
});
afterAll(() => {
  reader.close();
  rmSync(directory, { recursive: true });
});

const pagesOf = (runs: Uint32Array): number[] => {
  const pages: number[] = [];
  for (let r = 0; r < runs.length; r += 2) for (let n = 0; n < runs[r + 1]!; n++) pages.push(runs[r]! + n);
  return pages;
};
const runsOf = fc.uniqueArray(fc.nat(PAGES - 1), { minLength: 1, maxLength: PAGES }).map((pages) => {
  const runs: number[] = [];
  for (const page of pages.sort((a, b) => a - b)) {
    if (runs.length > 0 && runs.at(-2)! + runs.at(-1)! === page) runs[runs.length - 1]!++;
    else runs.push(page, 1);
  }
  return Uint32Array.from(runs);
});

describe("gathered pages", () => {
  it("lie one after the other from the start on, without those that are zero, and nothing lies before them", () => {
    fc.assert(
      fc.property(runsOf, fc.nat(700), fc.constantFrom("none" as const, "worker" as const), (runs, start, look) => {
        const pages = pagesOf(runs);
        const packet = Buffer.alloc(start + pages.length * PAGE_BYTES + 64, GUARD);
        const { normalPages, zeroMap } = gatherPages(reader, runs, pages.length, look, packet, start);
        const kept = look === "none" ? pages : pages.filter((page) => page % 2 === 1);
        expect(normalPages).toBe(kept.length);
        for (const [at, page] of kept.entries()) {
          const sent = packet.subarray(start + at * PAGE_BYTES, start + (at + 1) * PAGE_BYTES);
          expect(sent.equals(memory.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES))).toBe(true);
        }
        for (const [index, page] of pages.entries())
          expect((zeroMap[index >>> 3]! & (1 << (index & 7))) !== 0).toBe(!kept.includes(page));
        expect(packet.subarray(0, start).every((byte) => byte === GUARD)).toBe(true);
        expect(packet.subarray(start + pages.length * PAGE_BYTES).every((byte) => byte === GUARD)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it("do not fit a packet that is too short: nothing is read beyond it", () => {
    const packet = Buffer.alloc(3 * PAGE_BYTES - 1);
    expect(() => gatherPages(reader, Uint32Array.of(1, 3), 3, "none", packet, 0)).toThrow(RangeError);
  });
});
