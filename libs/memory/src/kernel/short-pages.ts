/** Payloads with short pages, from the pages that the destination holds back to whole ones. */
import { PACKET_PAGES_MAX, type ShortPage } from "@godwit/protocol";
import { PAGE_BYTES } from "../ram-block.ts";
import { digestRange } from "./digest.ts";
import { applyXbzrle } from "./xbzrle.ts";

/** What unpacking needs of a packet of pages. */
export interface PackedPages {
  readonly runs: Uint32Array;
  readonly pages: number;
  readonly zeroMap: Uint8Array;
  readonly short: ReadonlyArray<ShortPage>;
}

/** Reads a page of the block, as it is now, to byte `at` of `target`. */
export type ReadBase = (page: number, target: Uint8Array, at: number) => void;

/** `differing`: pages whose base is not what their delta was made for (bit i: the i-th page of the packet). */
export type Unpacked = Uint8Array | { readonly differing: Uint8Array } | { readonly malformed: string };

/** A room for `unpackPages`: as many bytes as the pages of a packet have. */
export const makePagesRoom = (): Uint8Array => new Uint8Array(PACKET_PAGES_MAX * PAGE_BYTES);

/**
 * The pages that are not zero, whole and one after the other: `payload` itself where none is short, else a part of `room`. `readBase` null: there is
 * nothing yet that a delta could change. The packet must be one that was decoded: its short pages are in order and within it.
 * Throws what `readBase` throws.
 */
export const unpackPages = (
  { runs, pages, zeroMap, short }: PackedPages,
  payload: Uint8Array,
  readBase: ReadBase | null,
  room: Uint8Array,
): Unpacked => {
  if (short.length === 0) return payload;
  /** Where each page of the packet begins in `room`. */
  const places = new Uint32Array(pages);
  let differing: Uint8Array | null = null;
  let taken = 0;
  let made = 0;
  let next = 0;
  let run = 0;
  let firstOfRun = 0;
  for (let index = 0; index < pages; index++) {
    if (index >= firstOfRun + runs[run * 2 + 1]!) {
      firstOfRun += runs[run * 2 + 1]!;
      run++;
    }
    if ((zeroMap[index >>> 3]! & (1 << (index & 7))) !== 0) continue;
    places[index] = made;
    const how = short[next]?.page === index ? short[next++] : undefined;
    if (how === undefined) {
      room.set(payload.subarray(taken, taken + PAGE_BYTES), made);
      taken += PAGE_BYTES;
    } else if (how.how === "copy") {
      room.copyWithin(made, places[how.of]!, places[how.of]! + PAGE_BYTES);
    } else {
      if (readBase === null) return { malformed: `page ${index} is a delta of a page that is not there` };
      readBase(runs[run * 2]! + index - firstOfRun, room, made);
      if (digestRange(room, made, PAGE_BYTES) !== how.base) {
        differing ??= new Uint8Array((pages + 7) >>> 3);
        differing[index >>> 3]! |= 1 << (index & 7);
      } else if (!applyXbzrle(payload, taken, taken + how.bytes, room, made)) {
        return { malformed: `page ${index} has a delta that is none` };
      }
      taken += how.bytes;
    }
    made += PAGE_BYTES;
  }
  return differing === null ? room.subarray(0, made) : { differing };
};
