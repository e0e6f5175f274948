import { PAGEMAP_HIGH } from "@godwit/host";
import * as Bitmap from "../bitmap.ts";

/**
 * Takes what pagemap entries say about `pages` pages from `firstPage` into two bitmaps of their block.
 *
 * A page is dirty when its entry carries the soft-dirty bit, or when it had an entry at the last look and has none now: the
 * kernel drops entries of shared memory together with their bits (when it builds a huge page, for one), and what was
 * written before that is known to nobody. `mapped` holds which pages had an entry, and is brought up to date.
 */
export const takeEntries = (
  entries: Uint32Array,
  firstPage: number,
  pages: number,
  dirty: Bitmap.Bitmap,
  mapped: Bitmap.Bitmap,
): void => {
  const hasEntry = PAGEMAP_HIGH.PRESENT | PAGEMAP_HIGH.SWAPPED;
  for (let page = 0; page < pages; page++) {
    const high = entries[page * 2 + 1]!;
    const at = firstPage + page;
    if ((high & hasEntry) !== 0) {
      if ((high & PAGEMAP_HIGH.SOFT_DIRTY) !== 0) Bitmap.setRange(dirty, at, 1);
      Bitmap.setRange(mapped, at, 1);
    } else if (Bitmap.test(mapped, at)) {
      Bitmap.setRange(dirty, at, 1);
      Bitmap.clearRange(mapped, at, 1);
    }
  }
};
