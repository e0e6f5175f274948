/** Where a page's bytes leave the source: from guest memory into the packet that carries them. */
import { asBuffer, isZeroPage, PAGE_BYTES, type RamReader } from "@godwit/memory";

/** What stands in the packet: `normalPages` pages packed from `start` on, and a map of those that are zero and were left out. */
export interface Gathered {
  readonly normalPages: number;
  readonly zeroMap: Uint8Array;
}

/**
 * Reads the pages of `runs` into `packet` from byte `start` on, and closes the gaps that zero pages leave. `zeroPages` says who
 * looks for them: nobody, this function, or the caller has (one bit per page). Throws what the reader throws.
 */
export const gatherPages = (
  reader: RamReader,
  runs: Uint32Array,
  pages: number,
  zeroPages: "none" | "worker" | Uint8Array,
  packet: Uint8Array,
  start: number,
): Gathered => {
  const zeroMap = new Uint8Array((pages + 7) >>> 3);
  const bytes = asBuffer(packet);
  let index = 0;
  let end = start;
  for (let r = 0; r < runs.length; r += 2) {
    const first = runs[r]!;
    const count = runs[r + 1]!;
    reader.readPages(first, count, packet, end);
    if (zeroPages === "none") {
      end += count * PAGE_BYTES;
      index += count;
      continue;
    }
    // Pages lie one after the other from `end` on; each that stays moves down to where the last one that stayed ends.
    for (let page = 0, at = end; page < count; page++, at += PAGE_BYTES, index++) {
      const zero =
        zeroPages === "worker" ? isZeroPage(bytes, at) : (zeroPages[index >>> 3]! & (1 << (index & 7))) !== 0;
      if (zero) {
        zeroMap[index >>> 3]! |= 1 << (index & 7);
        continue;
      }
      if (at !== end) bytes.copyWithin(end, at, at + PAGE_BYTES);
      end += PAGE_BYTES;
    }
  }
  return { normalPages: (end - start) / PAGE_BYTES, zeroMap };
};
