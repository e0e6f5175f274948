/**
 * Pages on their way into a QEMU's memory: which were sent, and what must be said again on another connection.
 *
 *     not sent --(place)--> on its way, a ping behind it --(its pong)--> in memory
 *        ^                        |
 *        +---(goOn: the connection broke, and QEMU has not received it; sent again at once)
 *
 * QEMU gives up a connection on which a page comes that it has already, so each is sent once. Pages of one host page are in place with
 * the last of them: they are sent together, with one ping behind them. Pure.
 */
import { PAGE_BYTES } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import { pagesPart, ping, SECTION_PAGES_MAX } from "./incoming-stream.ts";

interface OnItsWay {
  readonly ping: number;
  readonly block: number;
  readonly first: number;
  readonly pages: number;
  /** Null: zeros. */
  readonly content: Uint8Array | null;
}

export interface PlacedBlock {
  /** QEMU's name for the RAMBlock. */
  readonly name: string;
  readonly pages: number;
  /** Pages of one host page: 1, or 512 for 2 MiB. */
  readonly hostPages: number;
}

export interface Placements {
  readonly blocks: ReadonlyArray<PlacedBlock>;
  /** Pages that were sent. */
  readonly sent: ReadonlyArray<Bitmap.Bitmap>;
  /** Oldest first. */
  readonly onTheirWay: OnItsWay[];
  /** Content of those, bytes. */
  bytesOnTheirWay: number;
  lastPing: number;
}

/** Pings of pages count from here on, so that none is taken for one of a handshake. */
const FIRST_PING = 0x1_0000;

export const make = (blocks: ReadonlyArray<PlacedBlock>): Placements => ({
  blocks,
  sent: blocks.map(({ pages }) => Bitmap.make(pages)),
  onTheirWay: [],
  bytesOnTheirWay: 0,
  lastPing: FIRST_PING,
});

/**
 * What is to be said to put those of the pages in place that were not sent; `content`: of all pages, null for zeros. Throws RangeError for
 * pages beyond the block, and for parts of host pages.
 */
export const place = (
  placements: Placements,
  block: number,
  first: number,
  pages: number,
  content: Uint8Array | null,
): ReadonlyArray<Buffer> => {
  const sent = placements.sent[block];
  const { hostPages = 1 } = placements.blocks[block] ?? {};
  const isWhole = first % hostPages === 0 && pages % hostPages === 0;
  if (sent === undefined || first < 0 || first + pages > sent.pageCount || !isWhole)
    throw new RangeError(`page ${first} of block ${block}`);
  const sectionPagesMax = Math.max(SECTION_PAGES_MAX, hostPages);
  const words: Buffer[] = [];
  for (let page = first; page < first + pages; ) {
    if (Bitmap.test(sent, page)) {
      page++;
      continue;
    }
    let count = 1;
    while (count < sectionPagesMax && page + count < first + pages && !Bitmap.test(sent, page + count)) count++;
    const from = (page - first) * PAGE_BYTES;
    words.push(send(placements, block, page, count, content?.slice(from, from + count * PAGE_BYTES) ?? null));
    page += count;
  }
  return words;
};

const send = (
  placements: Placements,
  block: number,
  first: number,
  pages: number,
  content: Uint8Array | null,
): Buffer => {
  placements.lastPing = (placements.lastPing + 1) >>> 0;
  placements.onTheirWay.push({ ping: placements.lastPing, block, first, pages, content });
  placements.bytesOnTheirWay += content?.length ?? 0;
  Bitmap.setRange(placements.sent[block]!, first, pages);
  return Buffer.concat([pagesPart(placements.blocks[block]!.name, first, pages, content), ping(placements.lastPing)]);
};

/** QEMU has done all that was said before a ping. */
export const answered = (placements: Placements, pong: number): void => {
  const { onTheirWay } = placements;
  const last = onTheirWay.findIndex(({ ping }) => ping === pong);
  for (const { content } of onTheirWay.splice(0, last + 1)) placements.bytesOnTheirWay -= content?.length ?? 0;
};

/** What is to be said on a connection that takes the place of a broken one. `received`: which pages of each block QEMU has. */
export const goOn = (placements: Placements, received: ReadonlyArray<Bitmap.Bitmap>): ReadonlyArray<Buffer> => {
  const lost = placements.onTheirWay.splice(0);
  placements.bytesOnTheirWay = 0;
  for (const { block, first, pages } of lost)
    for (let page = first; page < first + pages; page++)
      if (!Bitmap.test(received[block]!, page)) Bitmap.clearRange(placements.sent[block]!, page, 1);
  return lost.flatMap(({ block, first, pages, content }) => place(placements, block, first, pages, content));
};
