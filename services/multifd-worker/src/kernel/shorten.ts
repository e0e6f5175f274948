/** Fewer bytes for pages that lie in a packet already: those that are the same as an earlier one, and those that only changed in part. */
import { asBuffer, digestRange, encodeXbzrle, PAGE_BYTES } from "@godwit/memory";
import { DELTA_BYTES_MAX, NO_SLOT, PACKET_PAGES_MAX, type ShortPage, type XbzrleItem } from "@godwit/protocol";
import type { Gathered } from "./gather.ts";

/** Pages as they were sent last, by slot. Throws when they cannot be read or written. */
export interface SentPages {
  readonly read: (slot: number, target: Uint8Array) => void;
  /** PAGE_BYTES of `source` from `at` on. */
  readonly write: (slot: number, source: Uint8Array, at: number) => void;
}

export interface Shortened {
  readonly short: ReadonlyArray<ShortPage>;
  readonly rawBytes: number;
  readonly overflow: number;
}

/** Bytes between two words of a page that are looked at before whole pages are compared; 16 of them, from the first word on. */
const SAMPLE_STEP = 272;
const SAMPLES_END = 16 * SAMPLE_STEP;

/** Equal for equal pages, and cheaper than a checksum of all of it. */
const sampleOf = (view: DataView, at: number): number => {
  let key = 0;
  for (let step = 0; step < SAMPLES_END; step += SAMPLE_STEP)
    key = Math.imul(key ^ view.getInt32(at + step, true), 0x9e3779b1) | 0;
  return key;
};

/** Whole pages of the packet at hand are found by BUCKET_BITS bits of their sample: the latest of each, so that a page is compared once at most. */
const BUCKET_BITS = 10;
const buckets = new Uint8Array(2 ** BUCKET_BITS);
/** What is in no bucket. */
const NOBODY = 0xff;
/** Of each page of the packet, if it is whole: its sample, and where it stands now. */
const samples = new Int32Array(PACKET_PAGES_MAX);
const places = new Uint32Array(PACKET_PAGES_MAX);

const ZEROS = new Uint8Array(PAGE_BYTES);
/** The page at hand, what was sent of it last, and the delta between them: whole words, which a packet's pages are not. */
const page = new Uint8Array(PAGE_BYTES);
const base = new Uint8Array(PAGE_BYTES);
const delta = new Uint8Array(DELTA_BYTES_MAX);

const isSamePage = (bytes: Buffer, one: number, other: number): boolean =>
  bytes.compare(bytes, one, one + PAGE_BYTES, other, other + PAGE_BYTES) === 0;

/**
 * Makes the gathered pages, which stand in `packet` from byte `start` on, as short as they can be, in place: each ends at or before where it
 * ended. `xbzrle` says in which slots of `sent` they are kept, and of which the destination holds what the slot has; null: of none.
 */
export const shortenPages = (
  packet: Uint8Array,
  start: number,
  pages: number,
  { zeroMap }: Gathered,
  xbzrle: XbzrleItem | null,
  sent: SentPages | null,
): Shortened => {
  const bytes = asBuffer(packet);
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const short: ShortPage[] = [];
  buckets.fill(NOBODY);
  let overflow = 0;
  let end = start;
  let at = start;
  for (let index = 0; index < pages; index++) {
    const slot = xbzrle?.slots[index] ?? NO_SLOT;
    const isKept = sent !== null && slot !== NO_SLOT;
    if ((zeroMap[index >>> 3]! & (1 << (index & 7))) !== 0) {
      if (isKept) sent.write(slot, ZEROS, 0);
      continue;
    }
    const hasBase = isKept && xbzrle !== null && (xbzrle.held[index >>> 3]! & (1 << (index & 7))) !== 0;
    if (hasBase) sent.read(slot, base);
    // Before the page is moved or written over.
    if (isKept) sent.write(slot, packet, at);
    const sample = sampleOf(view, at);
    const bucket = sample >>> (32 - BUCKET_BITS);
    const like = buckets[bucket]!;
    if (like !== NOBODY && samples[like] === sample && isSamePage(bytes, places[like]!, at)) {
      short.push({ how: "copy", page: index, of: like });
      at += PAGE_BYTES;
      continue;
    }
    if (hasBase) {
      page.set(packet.subarray(at, at + PAGE_BYTES));
      const deltaBytes = encodeXbzrle(base, page, delta, DELTA_BYTES_MAX);
      if (deltaBytes !== null) {
        short.push({ how: "delta", page: index, bytes: deltaBytes, base: digestRange(base, 0, PAGE_BYTES) });
        packet.set(delta.subarray(0, deltaBytes), end);
        end += deltaBytes;
        at += PAGE_BYTES;
        continue;
      }
      overflow++;
    }
    if (at !== end) bytes.copyWithin(end, at, at + PAGE_BYTES);
    buckets[bucket] = index;
    samples[index] = sample;
    places[index] = end;
    end += PAGE_BYTES;
    at += PAGE_BYTES;
  }
  return { short, rawBytes: end - start, overflow };
};
