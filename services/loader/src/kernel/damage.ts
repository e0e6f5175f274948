import { crc32 } from "node:zlib";
import { PAGE_BYTES } from "@godwit/memory";

/** Which of the pages in `bytes` is the first that is not what was saved, of `sums` from `first` on; -1: none. */
export const damagedPage = (bytes: Uint8Array, sums: Uint32Array, first: number): number => {
  const pages = bytes.length / PAGE_BYTES;
  for (let n = 0; n < pages; n++)
    if (crc32(bytes.subarray(n * PAGE_BYTES, (n + 1) * PAGE_BYTES)) !== sums[first + n]) return first + n;
  return -1;
};
