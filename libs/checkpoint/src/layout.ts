/** Where everything lies in a checkpoint that is written. */
import { PAGE_BYTES } from "@godwit/protocol";
import {
  bitmapBytes,
  CAPABILITIES_SUBSECTION,
  MAPPED_HEADER_BYTES,
  MAPPED_RAM,
  MAPPED_VERSION,
  PAGES_ALIGNMENT_BYTES,
  RAM_FLAG,
  RAM_SECTION,
  SECTION,
  STREAM_MAGIC,
  STREAM_VERSION,
} from "./format.ts";
import { shortText, text, u8, u32, u64 } from "./stream-words.ts";

export interface BlockSize {
  readonly name: string;
  readonly lengthBytes: number;
}

/** A block's places, bytes from the start of the file. */
export interface BlockPlace extends BlockSize {
  readonly headerOffset: number;
  readonly bitmapOffset: number;
  readonly pagesOffset: number;
}

export interface Layout {
  /** From `start` to the first block. */
  readonly head: Uint8Array;
  readonly blocks: ReadonlyArray<BlockPlace>;
  /** Behind the pages of the last block. */
  readonly end: number;
}

const roundUp = (value: number, to: number): number => Math.ceil(value / to) * to;

const headOf = (machine: string, ramSection: number, blocks: ReadonlyArray<BlockSize>): Uint8Array => {
  const total = blocks.reduce((sum, block) => sum + block.lengthBytes, 0);
  return Buffer.concat([
    u32(STREAM_MAGIC),
    u32(STREAM_VERSION),
    u8(SECTION.configuration),
    u32(text(machine).length),
    text(machine),
    u8(SECTION.subsection),
    shortText(CAPABILITIES_SUBSECTION),
    u32(1),
    u32(1),
    shortText(MAPPED_RAM),
    u8(SECTION.start),
    u32(ramSection),
    shortText(RAM_SECTION.name),
    u32(RAM_SECTION.instance),
    u32(RAM_SECTION.version),
    u64(total + RAM_FLAG.memSize),
  ]);
};

/**
 * The places of `blocks` in a file whose stream begins at `start`. Blocks that are added at the end leave those before them where
 * they were, so that pages can be written before all blocks are known.
 */
export const layOut = (
  machine: string,
  ramSection: number,
  blocks: ReadonlyArray<BlockSize>,
  start: number,
): Layout => {
  const head = headOf(machine, ramSection, blocks);
  let at = start + head.length;
  const places = blocks.map((block): BlockPlace => {
    const headerOffset = at;
    const bitmapOffset = headerOffset + shortText(block.name).length + 8 + MAPPED_HEADER_BYTES;
    const bitmapEnd = bitmapOffset + bitmapBytes(block.lengthBytes / PAGE_BYTES);
    const pagesOffset = roundUp(bitmapEnd, PAGES_ALIGNMENT_BYTES);
    at = pagesOffset + block.lengthBytes;
    return { ...block, headerOffset, bitmapOffset, pagesOffset };
  });
  return { head, blocks: places, end: at };
};

/** What stands at a block's `headerOffset`, up to its bitmap. */
export const blockHeader = ({ name, lengthBytes, bitmapOffset, pagesOffset }: BlockPlace): Uint8Array =>
  Buffer.concat([
    shortText(name),
    u64(lengthBytes),
    u32(MAPPED_VERSION),
    u64(PAGE_BYTES),
    u64(bitmapOffset),
    u64(pagesOffset),
  ]);

/** What stands behind the last block: the ends of RAM's sections. */
export const ramTail = (ramSection: number): Uint8Array => {
  const close = [u64(RAM_FLAG.eos), u8(SECTION.footer), u32(ramSection)];
  return Buffer.concat([...close, u8(SECTION.end), u32(ramSection), ...close]);
};
