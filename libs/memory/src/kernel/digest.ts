import { crc32 } from "node:zlib";
import { PAGE_BYTES } from "../ram-block.ts";

/**
 * CRC-32 of a part of `bytes`, going on from the digest `previous` of what came before it (0 to begin with): the digest of a
 * block does not depend on the pieces it was read in. It finds errors; it is no proof against somebody who forges.
 */
export const digestRange = (bytes: Uint8Array, offset: number, lengthBytes: number, previous = 0): number =>
  crc32(bytes.subarray(offset, offset + lengthBytes), previous);

/**
 * CRC-32 of each page of `runs` (pairs of first page and count, `pages` in all), as the memory is now. `room` is where they are read
 * to: at least the longest run. Throws what the reader throws.
 */
export const digestPages = (
  reader: { readonly readPages: (firstPage: number, pages: number, target: Uint8Array, targetOffset: number) => void },
  runs: Uint32Array,
  pages: number,
  room: Uint8Array,
): Uint32Array => {
  const digests = new Uint32Array(pages);
  let index = 0;
  for (let r = 0; r < runs.length; r += 2) {
    const count = runs[r + 1]!;
    reader.readPages(runs[r]!, count, room, 0);
    for (let page = 0; page < count; page++, index++)
      digests[index] = crc32(room.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
  }
  return digests;
};
