/** Where a page's bytes arrive in a postcopy: from a packet to where a vCPU may wait for them. */
import type { MissingMemory } from "@godwit/guest";
import { Bitmap, decompress, makePagesRoom, PAGE_BYTES, stretches, unpackPages } from "@godwit/memory";
import { isMalformed, type PagesPacket } from "@godwit/protocol";
import type { PostcopyBlock } from "./decisions/index.ts";

/**
 * Puts pages in place. The kernel takes whole host pages only: parts of a large one wait here until it is whole, so at most as many bytes
 * as are asked for at a time, and what belongs to the same host pages.
 */
export interface Placer {
  /** Throws what `MissingMemory.copy` throws. The packet must be one that was asked for: its pages lie within the block. */
  readonly place: (packet: PagesPacket) => "placed" | { readonly malformed: string };
}

export const makePlacer = (memory: MissingMemory, blocks: ReadonlyArray<PostcopyBlock>): Placer => {
  const room = makePagesRoom();
  const parts = new Map<string, { readonly bytes: Uint8Array; readonly have: Bitmap.Bitmap }>();

  /** One part of a host page; whole, it goes to its place. Pages of zeros have no bytes. */
  const collect = (block: number, page: number, pages: number, bytes: Uint8Array | null): void => {
    const { hostPages, pages: pagesOfBlock } = blocks[block]!;
    const first = page - (page % hostPages);
    const whole = Math.min(hostPages, pagesOfBlock - first);
    const key = `${block}-${first}`;
    const part = parts.get(key) ?? { bytes: new Uint8Array(whole * PAGE_BYTES), have: Bitmap.make(whole) };
    if (bytes !== null) part.bytes.set(bytes, (page - first) * PAGE_BYTES);
    // Which, not how many: a packet that could not be placed in all its places comes again.
    Bitmap.setRange(part.have, page - first, pages);
    parts.set(key, part);
    if (!Bitmap.hasRange(part.have, 0, whole)) return;
    memory.copy(block, first, part.bytes);
    parts.delete(key);
  };

  const put = (block: number, page: number, pages: number, bytes: Uint8Array | null): void => {
    const { hostPages } = blocks[block]!;
    if (hostPages === 1) {
      if (bytes === null) memory.zero(block, page, pages);
      else memory.copy(block, page, bytes);
      return;
    }
    // A packet's run may reach from one host page into the next.
    for (let done = 0; done < pages; ) {
      const count = Math.min(pages - done, hostPages - ((page + done) % hostPages));
      const from = done * PAGE_BYTES;
      collect(block, page + done, count, bytes === null ? null : bytes.subarray(from, from + count * PAGE_BYTES));
      done += count;
    }
  };

  const place: Placer["place"] = (packet) => {
    const unpacked = decompress(packet.compression, packet.payload, packet.rawBytes);
    if (isMalformed(unpacked)) return unpacked;
    // A page that is missing is no base for a delta.
    const payload = unpackPages(packet, unpacked, null, room);
    if (!(payload instanceof Uint8Array)) return "malformed" in payload ? payload : { malformed: "a delta" };
    let offset = 0;
    stretches(packet.runs, packet.zeroMap, (first, count, _, isZero) => {
      if (isZero) return put(packet.block, first, count, null);
      put(packet.block, first, count, payload.subarray(offset, offset + count * PAGE_BYTES));
      offset += count * PAGE_BYTES;
    });
    return "placed";
  };
  return { place };
};
