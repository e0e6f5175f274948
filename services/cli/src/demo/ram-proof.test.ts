import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ADDRESS_OFFSET, COUNTER_OFFSETS } from "@godwit/guest";
import { afterAll, assert, describe, it } from "vitest";
import { isProven, proveRam } from "./ram-proof.ts";

const PAGE_BYTES = 4096;
const PAGES = 16;
const program = { startAddress: 4 * PAGE_BYTES, endAddress: PAGES * PAGE_BYTES };
const directory = mkdtempSync(join(tmpdir(), "godwit-ram-proof-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** RAM of a guest that has incremented so many counters. */
const ramAfter = (updates: number): Buffer => {
  const ram = Buffer.alloc(PAGES * PAGE_BYTES, 7);
  const addresses = Array.from({ length: PAGES - 4 }, (_, page) => program.startAddress + page * PAGE_BYTES).flatMap(
    (page) => COUNTER_OFFSETS.map((offset) => page + offset),
  );
  for (const [index, address] of addresses.entries()) {
    ram.writeUInt32LE(Math.floor((updates + addresses.length - 1 - index) / addresses.length), address);
  }
  for (let page = program.startAddress; page < program.endAddress; page += PAGE_BYTES)
    ram.writeUInt32LE(page, page + ADDRESS_OFFSET);
  return ram;
};

const prove = (source: Buffer, destination: Buffer) => {
  writeFileSync(join(directory, "source"), source);
  writeFileSync(join(directory, "destination"), destination);
  return proveRam(join(directory, "source"), join(directory, "destination"), program);
};

describe("the proof of a moved guest's memory", () => {
  it("holds when the counters went on and nothing else changed", () => {
    const proof = prove(ramAfter(100), ramAfter(130));
    assert.isTrue(isProven(proof));
    assert.deepInclude(proof, { "updates-since": 30, "pages-compared": PAGES, "pages-different": 0 });
  });

  it("fails for a page of an older pass", () => {
    const moved = ramAfter(130);
    ramAfter(60).copy(moved, 8 * PAGE_BYTES, 8 * PAGE_BYTES, 9 * PAGE_BYTES);
    const proof = prove(ramAfter(100), moved);
    assert.isAbove(proof["ledger-faults"], 0);
    assert.isFalse(isProven(proof));
  });

  it.each([0, 4, 5, 0x801, 0x804, 0xffb])("fails for a byte that is no counter, at %i", (offset) => {
    const moved = ramAfter(130);
    const address = 9 * PAGE_BYTES + offset;
    moved[address] = (moved[address] ?? 0) ^ 0x80;
    const proof = prove(ramAfter(100), moved);
    assert.isAbove(proof["pages-different"] + proof["ledger-faults"], 0);
    assert.isFalse(isProven(proof));
  });

  it("counts pages of the firmware and the stack apart", () => {
    const moved = ramAfter(130);
    moved[10] = 0;
    const proof = prove(ramAfter(100), moved);
    assert.deepInclude(proof, { "low-pages-different": 1, "pages-different": 0 });
    assert.isTrue(isProven(proof));
  });

  it("fails for a guest that does not go on", () => {
    assert.isFalse(isProven(prove(ramAfter(100), ramAfter(100))));
  });
});
