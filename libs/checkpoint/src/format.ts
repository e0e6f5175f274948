/**
 * The words of QEMU's migration stream, as far as a mapped-ram file has them (migration/savevm.c, migration/ram.c,
 * docs/devel/migration/mapped-ram.rst, QEMU 9.0 and later). All numbers are big-endian; only bitmaps are in the host's order.
 *
 *     "QEVM" u32 3
 *     07 CONFIGURATION  u32 n, machine type   { 05 SUBSECTION u8 n, name, u32 version, payload } *
 *     01 START "ram"    u64 total | MEM_SIZE
 *        each block:    u8 n, name   u64 length   [28-byte header]   bitmap   ... pages, from a multiple of 1 MiB on
 *                       u64 EOS      7e FOOTER
 *     02 PART, 03 END   u64 EOS      7e FOOTER        (nothing in them: pages have their places)
 *     04 FULL ...       devices, without lengths: only their own code, or the description at the end, knows where one ends
 *     00 EOF   06 VMDESCRIPTION u32 n, JSON
 */
export const STREAM_MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;

export const SECTION = {
  eof: 0x00,
  start: 0x01,
  part: 0x02,
  end: 0x03,
  full: 0x04,
  subsection: 0x05,
  description: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;

/** Low bits of a RAM record; the bits above the page size are an offset in the block, or the total. */
export const RAM_FLAG = {
  zero: 0x02,
  memSize: 0x04,
  page: 0x08,
  eos: 0x10,
  continue: 0x20,
  multifdFlush: 0x200,
} as const;
export const RAM_SECTION = { name: "ram", instance: 0, version: 4 } as const;

/** A machine type's name, bytes: QEMU's longest has a third of it. */
export const MACHINE_BYTES_MAX = 256;
/** Capabilities in a header: QEMU writes those that are on and change the stream, of which there are two. */
export const CAPABILITIES_MAX = 64;

export const CAPABILITIES_SUBSECTION = "configuration/capabilities";
export const MAPPED_RAM = "mapped-ram";
export const IGNORE_SHARED = "x-ignore-shared";

/** u32 version, u64 page size, u64 offset of the bitmap, u64 offset of the pages; offsets count from the start of the file. */
export const MAPPED_HEADER_BYTES = 28;
export const MAPPED_VERSION = 1;
/** QEMU rounds up to it, for direct I/O on every file system. */
export const PAGES_ALIGNMENT_BYTES = 1024 ** 2;

/** Where the device section of a builtin guest says so. */
export const BUILTIN_SECTION = { name: "godwit-builtin", id: 2, version: 1 } as const;
/** RAM's section, where no QEMU has numbered it. */
export const RAM_SECTION_ID = 1;

/** Bytes of a block's bitmap: whole 64-bit words. */
export const bitmapBytes = (pages: number): number => Math.ceil(pages / 64) * 8;
