/**
 * Pages that take fewer bytes of a packet's payload than they have, as they stand behind it, 8 bytes each:
 *
 *      0 u8 which page of the packet   1 u8 how (1 delta, 2 copy)   2 u16 bytes of the delta, or the page that it is a copy of
 *      4 u32 crc32 of the delta's base; 0 for a copy
 *
 * A delta is QEMU's XBZRLE: what to change of the page that the destination's memory holds, if it is the one that was meant. A copy has
 * no bytes at all: it is the same as an earlier page of the packet, which must stand there whole, so that no page waits for another one.
 */
import { DELTA_BYTES_MAX, PAGE_BYTES, SHORT_PAGE_BYTES } from "./limits.ts";
import type { Malformed } from "./packet.ts";

/** `page` and `of` count from the start of the packet; `base` is the crc32 of the page that a delta of `bytes` bytes belongs to. */
export type ShortPage =
  | { readonly how: "delta"; readonly page: number; readonly bytes: number; readonly base: number }
  | { readonly how: "copy"; readonly page: number; readonly of: number };

const HOWS = ["delta", "copy"] as const;

export const writeShortPages = (view: DataView, at: number, short: ReadonlyArray<ShortPage>): void => {
  for (const page of short) {
    view.setUint8(at, page.page);
    view.setUint8(at + 1, HOWS.indexOf(page.how) + 1);
    view.setUint16(at + 2, page.how === "delta" ? page.bytes : page.of, true);
    view.setUint32(at + 4, page.how === "delta" ? page.base : 0, true);
    at += SHORT_PAGE_BYTES;
  }
};

/** Bytes of a payload, unpacked, with so many pages that are not zero. */
export const rawBytesOf = (normalPages: number, short: ReadonlyArray<ShortPage>): number =>
  short.reduce((sum, page) => sum - PAGE_BYTES + (page.how === "delta" ? page.bytes : 0), normalPages * PAGE_BYTES);

const malformed = (reason: string): Malformed => ({ kind: "malformed", reason });
const NONE: ReadonlyArray<ShortPage> = [];

/** Reads the short pages of a packet of `pages` pages, from byte `at` to the end of `view`. */
export const readShortPages = (
  view: DataView,
  at: number,
  pages: number,
  zeroMap: Uint8Array,
): ReadonlyArray<ShortPage> | Malformed => {
  if (at === view.byteLength) return NONE;
  const isZero = (page: number): boolean => (zeroMap[page >>> 3]! & (1 << (page & 7))) !== 0;
  const short: ShortPage[] = [];
  const seen = new Set<number>();
  for (let next = 0; at < view.byteLength; at += SHORT_PAGE_BYTES) {
    const page = view.getUint8(at);
    const how = HOWS[view.getUint8(at + 1) - 1];
    const value = view.getUint16(at + 2, true);
    const base = view.getUint32(at + 4, true);
    if (page < next || page >= pages || isZero(page)) return malformed(`page ${page} of ${pages} is short`);
    if (how === undefined) return malformed(`page ${page} is short in way ${view.getUint8(at + 1)}`);
    if (how === "delta") {
      if (value > DELTA_BYTES_MAX) return malformed(`a delta of ${value} bytes`);
      short.push({ how, page, bytes: value, base });
    } else {
      if (value >= page || isZero(value) || seen.has(value) || base !== 0)
        return malformed(`page ${page} is a copy of page ${value}`);
      short.push({ how, page, of: value });
    }
    seen.add(page);
    next = page + 1;
  }
  return short;
};
