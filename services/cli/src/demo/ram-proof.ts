/** Two RAM files of the boot guest compared: what the source held when it was stopped, and what the destination holds now. */
import { readFileSync } from "node:fs";
import { type BootProgram, COUNTER_OFFSETS, checkBootGuest } from "@godwit/guest";

const PAGE_BYTES = 4096;
const COUNTER_BYTES = 4;

export interface RamProof {
  /** Counters of the destination that break the guest's ledger: each stands for an update that was lost, torn or misplaced. */
  readonly "ledger-faults": number;
  /** Which pass over its memory the guest was in when it was stopped. */
  readonly "pass-at-source": number;
  /** How many counters it has incremented since, at the destination. */
  readonly "updates-since": number;
  readonly "pages-compared": number;
  /**
   * Pages whose bytes differ, the counters left aside. Those below 1 MiB belong to the firmware and to the guest's stack, which
   * go on being written.
   */
  readonly "pages-different": number;
  readonly "low-pages-different": number;
}

/** Both guests must be stopped. Throws what the file system throws, and RangeError for files of different length. */
export const proveRam = (
  sourcePath: string,
  destinationPath: string,
  program: Pick<BootProgram, "startAddress" | "endAddress">,
): RamProof => {
  const source = readFileSync(sourcePath);
  const destination = readFileSync(destinationPath);
  if (source.length !== destination.length) {
    throw new RangeError(`RAM of ${source.length} bytes at the source, of ${destination.length} at the destination`);
  }
  const before = checkBootGuest(source, program);
  const after = checkBootGuest(destination, program);
  let different = 0;
  let low = 0;
  for (let address = 0; address < source.length; address += PAGE_BYTES) {
    const there = source.subarray(address, address + PAGE_BYTES);
    const here = destination.subarray(address, address + PAGE_BYTES);
    const counts = address >= program.startAddress && address < program.endAddress;
    if (counts ? equalBesideCounters(there, here) : there.equals(here)) continue;
    if (address < program.startAddress) low++;
    else different++;
  }
  return {
    "ledger-faults": before.faultCount + after.faultCount,
    "pass-at-source": before.round,
    "updates-since": updates(destination, program) - updates(source, program),
    "pages-compared": source.length / PAGE_BYTES,
    "pages-different": different,
    "low-pages-different": low,
  };
};

/** All increments so far, as the sum of all counters. */
const updates = (
  ram: Buffer,
  { startAddress, endAddress }: Pick<BootProgram, "startAddress" | "endAddress">,
): number => {
  let sum = 0;
  for (let page = startAddress; page < endAddress; page += PAGE_BYTES) {
    for (const offset of COUNTER_OFFSETS) sum += ram.readUInt32LE(page + offset);
  }
  return sum;
};

/** The bytes between the counters; the last counter ends its page. */
const equalBesideCounters = (there: Buffer, here: Buffer): boolean =>
  COUNTER_OFFSETS.every((offset, index) => {
    const from = offset + COUNTER_BYTES;
    const to = COUNTER_OFFSETS[index + 1] ?? PAGE_BYTES;
    return there.subarray(from, to).equals(here.subarray(from, to));
  });

/** No update was lost, no other byte changed, and the guest has gone on meanwhile. */
export const isProven = (proof: RamProof): boolean =>
  proof["ledger-faults"] === 0 &&
  proof["pages-different"] === 0 &&
  proof["pages-compared"] > 0 &&
  // Passes from 1: RAM of nothing but zeros would have no faults either.
  proof["pass-at-source"] >= 1 &&
  proof["updates-since"] > 0;
