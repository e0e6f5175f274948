/**
 * What the source of a migration says to a QEMU that waits, as bytes. Sources: docs/devel/migration/main.rst and postcopy.rst of QEMU, and
 * what migration/savevm.c and migration/ram.c of 10.0 read. All numbers are big-endian.
 *
 *     "QEVM" u32 3
 *     07 CONFIGURATION   u32 n, machine type   { 05 SUBSECTION u8 n, name, u32 version, payload } *
 *     08 COMMAND         u16 command   u16 n   n bytes
 *     01 START "ram"     u64 total | MEM_SIZE   { u8 n, name   u64 length } *   u64 EOS   7e FOOTER
 *     02 PART            { u64 offset | PAGE | ZERO [| CONTINUE]   [u8 n, name]   page or u8 0 } *   u64 EOS   7e FOOTER
 *     03 END             u64 EOS   7e FOOTER
 *     04 FULL ...        devices, without lengths
 *     00 EOF
 */
import {
  RAM_FLAG,
  RAM_SECTION,
  SECTION,
  STREAM_MAGIC,
  STREAM_VERSION,
  shortText,
  text,
  u8,
  u16,
  u32,
  u64,
} from "@godwit/checkpoint/qemu-stream";
import { PAGE_BYTES } from "@godwit/memory";

/**
 * RAM's number among the sections, which is for the sender to choose: the same whoever goes on with a stream, and none that a QEMU gives
 * to its devices, which it counts from 0.
 */
export const RAM_SECTION_NUMBER = 0xffff_0001;

/** Pages that one RAM section may hold, so that a stream can be ended soon: 1 MiB. */
export const SECTION_PAGES_MAX = 256;

const COMMAND = {
  openReturnPath: 1,
  ping: 2,
  postcopyAdvise: 3,
  postcopyListen: 4,
  postcopyRun: 5,
  postcopyRamDiscard: 6,
  packaged: 7,
  postcopyResume: 9,
  receivedBitmap: 10,
} as const;

/** All targets whose page this is say so where it is not their least one (Arm), and the others read it as well. */
const TARGET_PAGE_BITS = 12;
const TARGET_PAGE_BITS_SUBSECTION = "configuration/target-page-bits";

const command = (code: number, data: Uint8Array = Buffer.alloc(0)): Buffer =>
  Buffer.concat([u8(SECTION.command), u16(code), u16(data.length), data]);

/** How every stream begins. No capability is named: those that QEMU compares are off on both sides. */
export const head = (machine: string): Buffer => {
  const type = text(machine);
  return Buffer.concat([
    u32(STREAM_MAGIC),
    u32(STREAM_VERSION),
    u8(SECTION.configuration),
    u32(type.length),
    type,
    u8(SECTION.subsection),
    shortText(TARGET_PAGE_BITS_SUBSECTION),
    u32(1),
    u32(TARGET_PAGE_BITS),
  ]);
};

/** From here on QEMU answers. */
export const openReturnPath = command(COMMAND.openReturnPath);
/** QEMU says the number again once it has done all that was said before. */
export const ping = (number: number): Buffer => command(COMMAND.ping, u32(number));
/**
 * A postcopy may come; QEMU compares the host pages of its RAMBlocks, whose sizes are or-ed together: those of the blocks that it has of
 * its own are usual ones. Trap: QEMU throws away what its RAM holds, and expects all of it.
 */
export const advise = (blocks: ReadonlyArray<{ readonly hostPageBytes: number }>): Buffer => {
  const sizes = blocks.reduce((all, { hostPageBytes }) => all | BigInt(hostPageBytes), BigInt(PAGE_BYTES));
  return command(COMMAND.postcopyAdvise, Buffer.concat([u64(Number(sizes)), u64(PAGE_BYTES)]));
};
/**
 * Throws pages away. Trap: QEMU 10.0 refuses to run after a postcopy in which nothing was thrown away, since it then takes the first
 * step of that at `listen`, and forgets that it listens.
 */
export const discard = (block: string, firstPage: number, pages: number): Buffer =>
  command(
    COMMAND.postcopyRamDiscard,
    Buffer.concat([u8(0), shortText(block), u8(0), u64(firstPage * PAGE_BYTES), u64(pages * PAGE_BYTES)]),
  );
/** Pages that are not there are waited for from now on, by whoever touches them. */
export const listen = command(COMMAND.postcopyListen);
/** All but the missing pages is there: QEMU runs, or is paused if it was told to stop while it waited. */
export const run = command(COMMAND.postcopyRun);
/** Another connection takes the place of one that broke; QEMU asks again for what it still waits for. */
export const resume = command(COMMAND.postcopyResume);
/** On such a connection, before that: QEMU tells which pages of a block it has put in place. */
export const askReceived = (block: string): Buffer => command(COMMAND.receivedBitmap, shortText(block));

/** Read as a whole before the first of it is done, so that the stream is free for pages while devices load. */
export const packaged = (stream: Uint8Array): Buffer =>
  Buffer.concat([command(COMMAND.packaged, u32(stream.length)), stream]);

const footer = Buffer.concat([u8(SECTION.footer), u32(RAM_SECTION_NUMBER)]);
const endOfRecords = u64(RAM_FLAG.eos);

export interface StreamBlock {
  readonly name: string;
  readonly lengthBytes: number;
  /** Absent: usual ones. */
  readonly hostPageBytes?: number;
}

/** Names all RAMBlocks, also those whose pages travel elsewhere. After `advise` QEMU wants to know of large host pages. */
export const ramStart = (blocks: ReadonlyArray<StreamBlock>): Buffer => {
  const total = blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  return Buffer.concat([
    u8(SECTION.start),
    u32(RAM_SECTION_NUMBER),
    shortText(RAM_SECTION.name),
    u32(RAM_SECTION.instance),
    u32(RAM_SECTION.version),
    u64(total + RAM_FLAG.memSize),
    ...blocks.flatMap(({ name, lengthBytes, hostPageBytes = PAGE_BYTES }) => [
      shortText(name),
      u64(lengthBytes),
      ...(hostPageBytes === PAGE_BYTES ? [] : [u64(hostPageBytes)]),
    ]),
    endOfRecords,
    footer,
  ]);
};

const partStart = Buffer.concat([u8(SECTION.part), u32(RAM_SECTION_NUMBER)]);

/** A section with neighbouring pages of one block; `bytes`: their content, null for zeros. */
export const pagesPart = (block: string, firstPage: number, pages: number, bytes: Uint8Array | null): Buffer => {
  const title = shortText(block);
  const recordBytes = 8 + (bytes === null ? 1 : PAGE_BYTES);
  const part = Buffer.allocUnsafe(
    partStart.length + pages * recordBytes + title.length + endOfRecords.length + footer.length,
  );
  let at = partStart.copy(part, 0);
  for (let page = 0; page < pages; page++) {
    const flags = (bytes === null ? RAM_FLAG.zero : RAM_FLAG.page) + (page === 0 ? 0 : RAM_FLAG.continue);
    at = part.writeBigUInt64BE(BigInt((firstPage + page) * PAGE_BYTES + flags), at);
    if (page === 0) at += title.copy(part, at);
    if (bytes === null) at = part.writeUInt8(0, at);
    else {
      part.set(bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), at);
      at += PAGE_BYTES;
    }
  }
  at += endOfRecords.copy(part, at);
  footer.copy(part, at);
  return part;
};

/** No page follows. */
export const ramEnd = Buffer.concat([u8(SECTION.end), u32(RAM_SECTION_NUMBER), endOfRecords, footer]);

export const endOfStream = u8(SECTION.eof);
