/**
 * Reads what a checkpoint holds, page contents apart, and trusts none of it: every length and offset is checked against the file
 * before it is used, and whoever wrote it, the result names no byte outside the file and no page outside its block.
 */
import { fstatSync } from "node:fs";
import * as Bitmap from "@godwit/memory/bitmap";
import { BLOCK_BYTES_MAX, BLOCKS_MAX, PAGE_BYTES } from "@godwit/protocol";
import { type Cursor, fileCursor } from "./cursor.ts";
import { DESCRIPTION_BYTES_MAX, type DeviceSection, describedDevices, TAIL_BYTES_MAX } from "./device-sections.ts";
import {
  bitmapBytes,
  IGNORE_SHARED,
  MAPPED_HEADER_BYTES,
  MAPPED_RAM,
  MAPPED_VERSION,
  RAM_FLAG,
  RAM_SECTION,
  SECTION,
} from "./format.ts";
import type { BlockPlace } from "./layout.ts";
import { MalformedCheckpoint } from "./malformed.ts";
import { readStreamHead } from "./stream-head.ts";

export interface StoredBlock extends BlockPlace {
  readonly pages: number;
  /** Bit n: page n is stored; otherwise it is zero. */
  readonly present: Bitmap.Bitmap;
  readonly presentPages: number;
}

export interface Checkpoint {
  readonly machine: string;
  readonly blocks: ReadonlyArray<StoredBlock>;
  /** RAM's number among the sections. */
  readonly ramSection: number;
  /** Where the devices begin, and what follows from there to the end of the file. */
  readonly devicesOffset: number;
  readonly tail: Uint8Array;
  readonly devices: ReadonlyArray<DeviceSection>;
  readonly fileBytes: number;
}

/**
 * Records and sections without pages between RAM and the devices: QEMU writes two for each turn of a save in which the guest runs, at most
 * some dozens a second, so a save of an hour has a third of it. Without a limit a file of nothing else would be read for minutes, in one go.
 */
const EMPTY_RECORDS_MAX = 2 ** 19;

/** Throws MalformedCheckpoint; and what the file system throws. `start`: where the stream begins (`,offset=`). */
export const readCheckpoint = (fd: number, start = 0): Checkpoint => {
  const fileBytes = fstatSync(fd).size;
  const cursor = fileCursor(fd, start, fileBytes);
  const machine = readHead(cursor);
  const ramSection = readRamStart(cursor);
  const blocks = readBlocks(cursor);
  const emptyRecord = countEmptyRecords(cursor);
  readRamEnd(cursor, ramSection, emptyRecord);
  skipToDevices(cursor, ramSection, emptyRecord);
  const devicesOffset = cursor.offset();
  if (fileBytes - devicesOffset > TAIL_BYTES_MAX)
    throw new MalformedCheckpoint(devicesOffset, `${fileBytes - devicesOffset} bytes of device state`);
  const tail = cursor.bytes(fileBytes - devicesOffset, "the device state");
  const devices = describedDevices(tail);
  if (devices === null)
    throw new MalformedCheckpoint(
      fileBytes,
      `the file does not end with a description of its devices, of at most ${DESCRIPTION_BYTES_MAX} bytes: it was not written to its end, or by no QEMU`,
    );
  return { machine, blocks, ramSection, devicesOffset, tail, devices, fileBytes };
};

const readHead = (cursor: Cursor): string => {
  const { machine, capabilities } = readStreamHead(cursor, "those of a checkpoint");
  if (!capabilities.includes(MAPPED_RAM))
    throw new MalformedCheckpoint(
      cursor.offset(),
      "the stream was saved without capability 'mapped-ram': its pages have no places",
    );
  if (capabilities.includes(IGNORE_SHARED))
    throw new MalformedCheckpoint(cursor.offset(), "the stream was saved with 'x-ignore-shared': its RAM is elsewhere");
  return machine;
};

const readRamStart = (cursor: Cursor): number => {
  const at = cursor.offset();
  const type = cursor.u8("a section");
  if (type !== SECTION.start) throw new MalformedCheckpoint(at, `section type ${type} where RAM begins`);
  const id = cursor.u32("the number of a section");
  const name = cursor.name("the name of a section");
  const instance = cursor.u32("its instance");
  const version = cursor.u32("its version");
  if (name !== RAM_SECTION.name || instance !== RAM_SECTION.instance)
    throw new MalformedCheckpoint(at, `section ${JSON.stringify(name)} ${instance} where RAM begins`);
  if (version !== RAM_SECTION.version)
    throw new MalformedCheckpoint(at, `RAM of version ${version}, expected ${RAM_SECTION.version}`);
  return id;
};

const readBlocks = (cursor: Cursor): ReadonlyArray<StoredBlock> => {
  const record = cursor.u64("the size of RAM");
  if ((record & (PAGE_BYTES - 1)) !== RAM_FLAG.memSize)
    throw new MalformedCheckpoint(cursor.offset() - 8, `record ${record} where the size of RAM stands`);
  let left = record - RAM_FLAG.memSize;
  // A sparse file may be as long as it likes, and each block's bitmap is read as a whole.
  if (left > BLOCK_BYTES_MAX) throw new MalformedCheckpoint(cursor.offset() - 8, `${left} bytes of RAM`);
  const blocks: StoredBlock[] = [];
  while (left > 0) {
    if (blocks.length === BLOCKS_MAX)
      throw new MalformedCheckpoint(cursor.offset(), `more than ${BLOCKS_MAX} RAMBlocks`);
    const block = readBlock(cursor);
    if (blocks.some(({ name }) => name === block.name))
      throw new MalformedCheckpoint(block.headerOffset, `a second RAMBlock ${JSON.stringify(block.name)}`);
    if (block.lengthBytes > left)
      throw new MalformedCheckpoint(
        block.headerOffset,
        `RAMBlock ${block.name} has ${block.lengthBytes} bytes of the ${left} left`,
      );
    left -= block.lengthBytes;
    blocks.push(block);
  }
  return blocks;
};

const readBlock = (cursor: Cursor): StoredBlock => {
  const headerOffset = cursor.offset();
  const name = cursor.name("the name of a RAMBlock");
  const lengthBytes = cursor.u64(`the length of RAMBlock ${name}`);
  const wrong = (reason: string): MalformedCheckpoint =>
    new MalformedCheckpoint(headerOffset, `RAMBlock ${name}: ${reason}`);
  if (lengthBytes === 0 || lengthBytes > BLOCK_BYTES_MAX || lengthBytes % PAGE_BYTES !== 0)
    throw wrong(`${lengthBytes} bytes are no whole pages of ${PAGE_BYTES}, or too many`);
  const version = cursor.u32("the version of mapped-ram");
  if (version > MAPPED_VERSION) throw wrong(`mapped-ram version ${version}, expected at most ${MAPPED_VERSION}`);
  const pageBytes = cursor.u64("the page size");
  if (pageBytes !== PAGE_BYTES) throw wrong(`pages of ${pageBytes} bytes, expected ${PAGE_BYTES}`);
  const bitmapOffset = cursor.u64("the place of the bitmap");
  const pagesOffset = cursor.u64("the place of the pages");
  const pages = lengthBytes / PAGE_BYTES;
  const bitmapEnd = headerOffset + Buffer.byteLength(name) + 9 + MAPPED_HEADER_BYTES + bitmapBytes(pages);
  if (bitmapOffset !== cursor.offset()) throw wrong(`its bitmap at ${bitmapOffset}, not behind its header`);
  if (pagesOffset % PAGE_BYTES !== 0) throw wrong(`its pages at ${pagesOffset}, no multiple of ${PAGE_BYTES}`);
  if (pagesOffset < bitmapEnd)
    throw wrong(`its pages at ${pagesOffset} overlap its bitmap, which ends at ${bitmapEnd}`);
  if (pagesOffset + lengthBytes > cursor.end)
    throw wrong(`its pages would end at ${pagesOffset + lengthBytes}, behind the end of the file at ${cursor.end}`);
  const present = readBitmap(cursor, pages);
  if (present === null)
    throw new MalformedCheckpoint(bitmapOffset, `the bitmap of RAMBlock ${name} marks pages behind its end`);
  cursor.skipTo(pagesOffset + lengthBytes, `the end of RAMBlock ${name}`);
  return {
    name,
    lengthBytes,
    headerOffset,
    bitmapOffset,
    pagesOffset,
    pages,
    present,
    presentPages: Bitmap.count(present),
  };
};

const readBitmap = (cursor: Cursor, pages: number): Bitmap.Bitmap | null => {
  const bytes = cursor.bytes(bitmapBytes(pages), "a bitmap");
  return Bitmap.fromBytes(bytes, pages);
};

/** To be called for each of them. */
const countEmptyRecords = (cursor: Cursor): (() => void) => {
  let count = 0;
  return () => {
    if (++count > EMPTY_RECORDS_MAX)
      throw new MalformedCheckpoint(cursor.offset(), `more than ${EMPTY_RECORDS_MAX} records without a page`);
  };
};

/** The rest of RAM's first section: nothing but its end. */
const readRamEnd = (cursor: Cursor, ramSection: number, emptyRecord: () => void): void => {
  for (;;) {
    emptyRecord();
    const at = cursor.offset();
    const record = cursor.u64("a RAM record");
    if (record === RAM_FLAG.multifdFlush) continue;
    if (record !== RAM_FLAG.eos)
      throw new MalformedCheckpoint(at, `RAM record 0x${record.toString(16)} where pages have their places`);
    break;
  }
  readFooter(cursor, ramSection);
};

const readFooter = (cursor: Cursor, ramSection: number): void => {
  const at = cursor.offset();
  if (cursor.u8("a footer") !== SECTION.footer) throw new MalformedCheckpoint(at, "no footer behind a RAM section");
  const id = cursor.u32("a footer");
  if (id !== ramSection) throw new MalformedCheckpoint(at, `the footer of section ${id} in section ${ramSection}`);
};

/** RAM's later sections are empty, commands are for a destination that listens. Ends before the first device. */
const skipToDevices = (cursor: Cursor, ramSection: number, emptyRecord: () => void): void => {
  for (;;) {
    emptyRecord();
    const at = cursor.offset();
    if (at === cursor.end) throw new MalformedCheckpoint(at, "the file ends where the devices should begin");
    const type = cursor.peek("a section");
    if (type === SECTION.full) return;
    cursor.u8("a section");
    if (type === SECTION.command) {
      cursor.u16("a command");
      cursor.bytes(cursor.u16("a command's length"), "a command's data");
    } else if (type === SECTION.part || type === SECTION.end) {
      const id = cursor.u32("the number of a section");
      if (id !== ramSection) throw new MalformedCheckpoint(at, `a part of section ${id}, which has not begun`);
      readRamEnd(cursor, ramSection, emptyRecord);
    } else {
      throw new MalformedCheckpoint(at, `section type ${type} where the devices should begin`);
    }
  }
};
