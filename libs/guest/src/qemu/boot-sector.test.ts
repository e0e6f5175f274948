import { describe, expect, it } from "vitest";
import { type BootProgram, bootSector } from "./boot-sector.ts";

const program: BootProgram = { startAddress: 0x10_0000, endAddress: 0x400_0000, burstPages: 20, roundsPerLetter: 1 };

describe("bootSector", () => {
  it("is one sector with the mark that firmware looks for", () => {
    const image = bootSector(program);
    expect(image.length).toBe(512);
    expect([...image.subarray(510)]).toEqual([0x55, 0xaa]);
  });

  it.each<[string, Partial<BootProgram>]>([
    ["a range that begins in the firmware's memory", { startAddress: 0xf_0000 }],
    ["a range that ends within a page", { endAddress: 0x400_0001 }],
    ["a range that ends beyond 3 GiB", { endAddress: 0xc000_1000 }],
    ["an empty range", { endAddress: 0x10_0000 }],
    ["a burst below zero", { burstPages: -1 }],
    ["letters after three rounds: no power of two", { roundsPerLetter: 3 }],
  ])("refuses %s", (_, change) => {
    expect(() => bootSector({ ...program, ...change })).toThrow(RangeError);
  });
});
