/** Where a page's bytes arrive: from an admitted packet into guest memory, or a slice into the device state's file. */
import { closeSync, constants, openSync, rmSync, writeSync } from "node:fs";
import {
  decompress,
  digestPages,
  makePagesRoom,
  openRamReader,
  openRamWriter,
  PAGE_BYTES,
  type RamBlock,
  type RamReader,
  type RamWriter,
  stretches,
  unpackPages,
} from "@godwit/memory";
import { type CheckPacket, isMalformed, type Packet, type PagesPacket, type SlicePacket } from "@godwit/protocol";

/**
 * What came of a packet: applied (of a check: its pages are equal), which pages differ (of a check from what it says, of others from what their deltas were
 * made for), or what is wrong with it. A page is written whole or not at all, and of a packet all or none.
 */
export type Applied = "applied" | { readonly differing: Uint8Array } | { readonly malformed: string };

/** The memory of an incoming guest, open for writing, and the file in which its device state gathers. */
export interface Receiver {
  /** Throws RamFileError when the memory cannot be written (a full file system), and what the file system throws. */
  readonly apply: (packet: Packet) => Applied;
  /** Throws pages away: they are missing from now on. */
  readonly discard: (block: number, firstPage: number, pages: number) => void;
  readonly deviceStatePath: string;
  /** Leaves the device state's file where it is. */
  readonly close: () => void;
  readonly removeDeviceState: () => void;
}

/** `blocks` in the order of the offer: a packet names a block by its index there. What a former life gathered of the device state stays. */
export const openReceiver = (blocks: ReadonlyArray<RamBlock>, deviceStatePath: string): Receiver => {
  const writers: RamWriter[] = [];
  const readers: RamReader[] = [];
  let fd = -1;
  const close = (): void => {
    for (const open of [...writers, ...readers]) open.close();
    if (fd !== -1) closeSync(fd);
  };
  try {
    for (const block of blocks) {
      writers.push(openRamWriter(block));
      readers.push(openRamReader(block));
    }
    fd = openSync(deviceStatePath, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    close();
    throw error;
  }
  const apply = (packet: Packet): Applied => {
    switch (packet.kind) {
      case "pages":
        return applyPages(writers, readers, packet);
      case "slice":
        return applySlice(fd, packet);
      case "check":
        return compare(readers, packet);
    }
  };
  const discard: Receiver["discard"] = (block, firstPage, pages) => writers[block]!.dropPages(firstPage, pages);
  return { deviceStatePath, apply, discard, close, removeDeviceState: () => rmSync(deviceStatePath, { force: true }) };
};

const applyPages = (
  writers: ReadonlyArray<RamWriter>,
  readers: ReadonlyArray<RamReader>,
  packet: PagesPacket,
): Applied => {
  const writer = writers[packet.block];
  if (writer === undefined) return { malformed: `block ${packet.block} of ${writers.length}` };
  const pagesOfBlock = writer.block.lengthBytes / PAGE_BYTES;
  const { runs } = packet;
  // Before the first byte is written: a packet that is wrong anywhere changes nothing.
  const end = endOf(runs);
  if (end > pagesOfBlock) return { malformed: `page ${end - 1} of a block of ${pagesOfBlock} pages` };
  const unpacked = decompress(packet.compression, packet.payload, packet.rawBytes);
  if (isMalformed(unpacked)) return unpacked;
  const reader = readers[packet.block]!;
  const payload = unpackPages(packet, unpacked, (page, room, at) => reader.readPages(page, 1, room, at), pagesRoom);
  if (!(payload instanceof Uint8Array)) return payload;
  let offset = 0;
  stretches(runs, packet.zeroMap, (first, count, _, isZero) => {
    if (isZero) return writer.zeroPages(first, count);
    writer.writePages(first, count, payload, offset);
    offset += count * PAGE_BYTES;
  });
  return "applied";
};

/** Behind the last page of ascending runs. */
const endOf = (runs: Uint32Array): number => (runs.length === 0 ? 0 : runs[runs.length - 2]! + runs[runs.length - 1]!);

/** Compares what memory holds now with what the source says it holds. */
const compare = (readers: ReadonlyArray<RamReader>, packet: CheckPacket): Applied => {
  const reader = readers[packet.block];
  if (reader === undefined) return { malformed: `block ${packet.block} of ${readers.length}` };
  const pagesOfBlock = reader.block.lengthBytes / PAGE_BYTES;
  const end = endOf(packet.runs);
  if (end > pagesOfBlock) return { malformed: `page ${end - 1} of a block of ${pagesOfBlock} pages` };
  const found = digestPages(reader, packet.runs, packet.pages, pagesRoom);
  const differing = new Uint8Array((packet.pages + 7) >>> 3);
  let equal = true;
  for (let i = 0; i < packet.pages; i++) {
    if (found[i] === packet.digests[i]) continue;
    equal = false;
    differing[i >>> 3]! |= 1 << (i & 7);
  }
  return equal ? "applied" : { differing };
};
/** One packet at a time is unpacked, or compared, here. */
const pagesRoom = makePagesRoom();

const applySlice = (fd: number, packet: SlicePacket): Applied => {
  if (packet.stream !== 0) return { malformed: `device stream ${packet.stream} was not announced` };
  const payload = decompress(packet.compression, packet.payload, packet.rawBytes);
  if (isMalformed(payload)) return payload;
  const bytes = payload as Uint8Array;
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, packet.offset + done);
  return "applied";
};
