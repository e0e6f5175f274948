/** How bitmaps of pages are cut into pieces that one packet holds: at most so many pages of one block, in ascending order. */
import * as Bitmap from "@godwit/memory/bitmap";

/** Pages of one block: `runs` holds pairs (first page, pages). */
export interface Cut {
  readonly block: number;
  readonly runs: Uint32Array;
  readonly pages: number;
}

export interface Place {
  readonly block: number;
  readonly page: number;
}
export const START: Place = { block: 0, page: 0 };
export const END: Place = { block: Number.POSITIVE_INFINITY, page: 0 };

/** The next cut in [from, to), or null; `after` is where the one behind it begins. */
export const next = (
  bitmaps: ReadonlyArray<Bitmap.Bitmap>,
  pagesMax: number,
  from: Place,
  to: Place,
): { readonly cut: Cut; readonly after: Place } | null => {
  let at = from.page;
  for (let b = from.block; b < bitmaps.length && b <= to.block; b++, at = 0) {
    const limit = b === to.block ? to.page : Number.POSITIVE_INFINITY;
    const runs: number[] = [];
    let pages = 0;
    while (pages < pagesMax) {
      const run = Bitmap.nextRun(bitmaps[b]!, at, pagesMax - pages);
      if (run === null || run.first >= limit) break;
      const count = Math.min(run.count, limit - run.first);
      runs.push(run.first, count);
      pages += count;
      at = run.first + count;
    }
    if (pages > 0) return { cut: { block: b, runs: Uint32Array.from(runs), pages }, after: { block: b, page: at } };
  }
  return null;
};

/** How many cuts [from, to) makes. */
export const count = (bitmaps: ReadonlyArray<Bitmap.Bitmap>, pagesMax: number, from: Place, to: Place): number => {
  let cuts = 0;
  for (let found = next(bitmaps, pagesMax, from, to); found !== null; found = next(bitmaps, pagesMax, found.after, to))
    cuts++;
  return cuts;
};

/** The runs of the pages of `cut` whose bit is set in `chosen` (bit i: the i-th page of the cut). */
export const choose = (cut: Cut, chosen: Uint8Array): Cut => {
  const runs: number[] = [];
  let pages = 0;
  let index = 0;
  for (let r = 0; r < cut.runs.length; r += 2) {
    const end = cut.runs[r]! + cut.runs[r + 1]!;
    for (let page = cut.runs[r]!; page < end; page++, index++) {
      if (((chosen[index >>> 3] ?? 0) & (1 << (index & 7))) === 0) continue;
      pages++;
      if (runs.length > 0 && runs.at(-2)! + runs.at(-1)! === page) runs[runs.length - 1]!++;
      else runs.push(page, 1);
    }
  }
  return { block: cut.block, runs: Uint32Array.from(runs), pages };
};
