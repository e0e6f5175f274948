/** Pages between a guest's memory and a checkpoint: which are zero, and what the others sum up to. */
import { crc32 } from "node:zlib";
import { asBuffer, isZeroPage, PAGE_BYTES } from "@godwit/memory";

/** One bit for each page in `bytes`: it is zero. */
export const zeroMapOf = (bytes: Uint8Array, pages: number): Uint8Array => {
  const map = new Uint8Array((pages + 7) >>> 3);
  const buffer = asBuffer(bytes);
  for (let page = 0; page < pages; page++)
    if (isZeroPage(buffer, page * PAGE_BYTES)) map[page >>> 3]! |= 1 << (page & 7);
  return map;
};

/** A crc32 for each page; 0 for those that the map marks. */
export const sumPages = (bytes: Uint8Array, pages: number, zeroMap: Uint8Array): Uint32Array => {
  const sums = new Uint32Array(pages);
  for (let page = 0; page < pages; page++) {
    if (((zeroMap[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0) continue;
    sums[page] = crc32(bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
  }
  return sums;
};
