import { ADDRESS_OFFSET, type BootProgram, COUNTER_OFFSETS } from "./boot-sector.ts";

/** One counter, or address of a page, that is not what it must be. */
export interface LedgerFault {
  /** Guest physical address of the word, bytes. */
  readonly address: number;
  readonly expected: number;
  readonly found: number;
}

/** What the counters of a stopped boot guest say. */
export interface BootLedger {
  /** How many words break the ledger: 0 when no update was lost, torn, or put elsewhere. */
  readonly faultCount: number;
  /** The first of them: counters in order of address, then addresses. */
  readonly faults: ReadonlyArray<LedgerFault>;
  /** The pass over its range the guest is in, counted from 1; 0: it never began. Trap: RAM of nothing but zeros is without faults, too. */
  readonly round: number;
  /** Address of the next counter it will increment; null between two passes. */
  readonly position: number | null;
}

/** Faults that are listed; more would fill a screen and tell nothing new. */
const FAULTS_LISTED_MAX = 10;

/**
 * Reads the ledger of a stopped boot guest (`boot-sector.ts`) out of its RAM.
 *
 * In the order of writing, all counters before the guest's position hold `round`, all from there on `round - 1`. Where the
 * position is follows from the counters: it is the place that leaves the fewest of them wrong.
 *
 * `ram` is the guest's RAM from address 0 on. Throws RangeError when it ends before the range does.
 */
export const checkBootGuest = (
  ram: Uint8Array,
  range: Pick<BootProgram, "startAddress" | "endAddress">,
): BootLedger => {
  if (range.endAddress > ram.length) throw new RangeError(`${ram.length} bytes of RAM end before ${range.endAddress}`);
  const addresses = counterAddresses(range);
  const view = new DataView(ram.buffer, ram.byteOffset, ram.byteLength);
  const counters = Uint32Array.from(addresses, (address) => view.getUint32(address, true));

  const candidates = candidateRounds(counters).map((round) => ({ round, ...bestPosition(counters, round) }));
  const best = candidates.reduce((a, b) => (b.faultCount < a.faultCount ? b : a));
  const faults: LedgerFault[] = [];
  for (let index = 0; index < counters.length && faults.length < FAULTS_LISTED_MAX; index++) {
    const expected = index < best.position ? best.round : (best.round - 1) >>> 0;
    const found = counters[index]!;
    if (found !== expected) faults.push({ address: addresses[index]!, expected, found });
  }
  const misplaced = best.round === 0 ? [] : misplacedPages(view, range);
  return {
    faultCount: best.faultCount + misplaced.length,
    faults: [...faults, ...misplaced].slice(0, FAULTS_LISTED_MAX),
    round: best.round,
    position: best.position === counters.length ? null : addresses[best.position]!,
  };
};

/** Pages that do not hold their own address. */
const misplacedPages = (
  view: DataView,
  { startAddress, endAddress }: Pick<BootProgram, "startAddress" | "endAddress">,
): LedgerFault[] => {
  const misplaced: LedgerFault[] = [];
  for (let page = startAddress; page < endAddress; page += 4096) {
    const found = view.getUint32(page + ADDRESS_OFFSET, true);
    if (found !== page) misplaced.push({ address: page + ADDRESS_OFFSET, expected: page, found });
  }
  return misplaced;
};

/** Addresses of all counters in the order in which the guest increments them. */
const counterAddresses = ({ startAddress, endAddress }: Pick<BootProgram, "startAddress" | "endAddress">): number[] => {
  const addresses: number[] = [];
  for (let page = startAddress; page < endAddress; page += 4096)
    for (const offset of COUNTER_OFFSETS) addresses.push(page + offset);
  return addresses;
};

/** The round can be what most counters hold, or the one after it. */
const candidateRounds = (counters: Uint32Array): [number, number] => {
  const seen = new Map<number, number>();
  for (const counter of counters) seen.set(counter, (seen.get(counter) ?? 0) + 1);
  let most = 0;
  let mostCount = 0;
  for (const [counter, count] of seen) if (count > mostCount) [most, mostCount] = [counter, count];
  return [most, (most + 1) >>> 0];
};

/** The number of counters already incremented in `round` that leaves the fewest wrong. */
const bestPosition = (counters: Uint32Array, round: number): { position: number; faultCount: number } => {
  const before = (round - 1) >>> 0;
  let right = 0;
  for (const counter of counters) if (counter === before) right++;
  let best = { position: 0, faultCount: counters.length - right };
  for (let index = 0; index < counters.length; index++) {
    const counter = counters[index];
    if (counter === round) right++;
    else if (counter === before) right--;
    // At equal numbers the later place: with all counters equal the round is over.
    if (counters.length - right <= best.faultCount) best = { position: index + 1, faultCount: counters.length - right };
  }
  return best;
};
