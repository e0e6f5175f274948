/**
 * Calls `each` for the longest stretches of pages that lie side by side in one run and are alike, zero or not, so that each takes one
 * system call: `at` counts pages from the start of the item, `first` those of the block. `zeroMap` has a bit for each page of the item.
 */
export const stretches = (
  runs: Uint32Array,
  zeroMap: Uint8Array,
  each: (first: number, count: number, at: number, isZero: boolean) => void,
): void => {
  let at = 0;
  for (let r = 0; r < runs.length; r += 2) {
    const end = at + runs[r + 1]!;
    let from = at;
    const first = runs[r]! - at;
    const isZero = (page: number): boolean => (zeroMap[page >>> 3]! & (1 << (page & 7))) !== 0;
    for (let page = at + 1; page <= end; page++) {
      if (page < end && isZero(page) === isZero(from)) continue;
      each(first + from, page - from, from, isZero(from));
      from = page;
    }
    at = end;
  }
};
