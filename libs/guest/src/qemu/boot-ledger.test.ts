import { describe, expect, it } from "vitest";
import { checkBootGuest } from "./boot-ledger.ts";
import { ADDRESS_OFFSET, COUNTER_OFFSETS } from "./boot-sector.ts";

const START = 0x10_0000;
const PAGES = 64;
const range = { startAddress: START, endAddress: START + PAGES * 4096 };

/** RAM of a guest that has incremented `increments` counters in all since its start. */
const ramAfter = (increments: number): Uint8Array => {
  const ram = new Uint8Array(range.endAddress);
  const view = new DataView(ram.buffer);
  const counters = PAGES * COUNTER_OFFSETS.length;
  for (let index = 0; index < counters; index++) {
    const value = Math.floor(increments / counters) + (index < increments % counters ? 1 : 0);
    view.setUint32(START + Math.floor(index / 3) * 4096 + COUNTER_OFFSETS[index % 3]!, value, true);
  }
  for (let address = START; address < range.endAddress; address += 4096)
    view.setUint32(address + ADDRESS_OFFSET, address, true);
  return ram;
};

const page = (number: number): [number, number] => [START + number * 4096, START + (number + 1) * 4096];

describe("checkBootGuest", () => {
  it("finds nothing wrong wherever the guest was stopped, and says where that is", () => {
    const counters = PAGES * COUNTER_OFFSETS.length;
    for (let done = 1; done <= counters; done++) {
      const ledger = checkBootGuest(ramAfter(7 * counters + done), range);
      expect(ledger).toMatchObject({ faultCount: 0, faults: [] });
      const next = START + Math.floor(done / 3) * 4096 + COUNTER_OFFSETS[done % 3]!;
      expect([ledger.round, ledger.position]).toEqual([8, done === counters ? null : next]);
    }
  });

  it("goes on where a counter overflows", () => {
    const ram = new Uint8Array(range.endAddress);
    const view = new DataView(ram.buffer);
    for (let address = START; address < range.endAddress; address += 4096)
      for (const offset of COUNTER_OFFSETS) view.setUint32(address + offset, address === START ? 0 : 0xffff_ffff, true);
    expect(checkBootGuest(ram, range)).toMatchObject({ faultCount: 0, round: 0, position: START + 4096 });
  });

  it("reads a view into a larger buffer", () => {
    const buffer = new Uint8Array(range.endAddress + 4096);
    buffer.set(ramAfter(500), 4096);
    expect(checkBootGuest(buffer.subarray(4096), range).faultCount).toBe(0);
  });

  const older = ramAfter(1000);
  const faulty: ReadonlyArray<[string, (ram: Uint8Array) => void, number]> = [
    ["a page that was lost", (ram) => ram.fill(0, ...page(20)), 4],
    ["a page from an older pass", (ram) => ram.set(older.subarray(...page(20)), page(20)[0]), 3],
    ["a page that is torn", (ram) => ram.set(older.subarray(page(20)[0] + 2048, page(20)[1]), page(20)[0] + 2048), 2],
    [
      "a page whose last byte is old",
      (ram) => ram.set(older.subarray(page(20)[0] + 0xffc, page(20)[1]), page(20)[0] + 0xffc),
      1,
    ],
    ["two pages that changed places", (ram) => swap(ram, 5, 60), 8],
    ["the first page lost", (ram) => ram.fill(0, ...page(0)), 4],
    ["the last page lost", (ram) => ram.fill(0, ...page(PAGES - 1)), 4],
    ["one counter a round ahead", (ram) => new DataView(ram.buffer).setUint32(page(50)[0], 999, true), 1],
  ];
  const swap = (ram: Uint8Array, one: number, other: number): void => {
    const kept = ram.slice(...page(one));
    ram.copyWithin(page(one)[0], ...page(other));
    ram.set(kept, page(other)[0]);
  };

  it.each(faulty)("finds %s", (_, spoil, faultCount) => {
    // In its 8th pass, stopped in page 33.
    const ram = ramAfter(7 * 192 + 100);
    spoil(ram);
    const ledger = checkBootGuest(ram, range);
    expect(ledger.faultCount).toBe(faultCount);
    expect(ledger.faults).toHaveLength(faultCount);
    expect(ledger.round).toBe(8);
  });

  it("names address, expected and found value, and stops listing at ten", () => {
    const ram = ramAfter(7 * 192 + 100);
    ram.fill(0, ...page(20));
    expect(checkBootGuest(ram, range).faults[0]).toEqual({ address: page(20)[0], expected: 8, found: 0 });
    for (const number of [1, 2, 3, 4, 5]) ram.fill(0, ...page(number));
    const ledger = checkBootGuest(ram, range);
    expect([ledger.faultCount, ledger.faults.length]).toEqual([24, 10]);
  });

  it("refuses RAM that ends before the range", () => {
    expect(() => checkBootGuest(new Uint8Array(START), range)).toThrow(RangeError);
  });
});
