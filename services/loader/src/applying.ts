/** Where a page's bytes arrive: from an admitted packet into guest memory, or a slice into the device state's file. */
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { decompress, openRamWriter, PAGE_BYTES, type RamBlock, type RamWriter } from "@godwit/memory";
import { isMalformed, type Packet, type PagesPacket, type SlicePacket } from "@godwit/protocol";

/** What came of a packet: applied, or what is wrong with it. A page is written whole or not at all. */
export type Applied = "applied" | { readonly malformed: string };

/** The memory of an incoming guest, open for writing, and the file in which its device state gathers. */
export interface Receiver {
  /** Throws RamFileError when the memory cannot be written (a full file system), and what the file system throws. */
  readonly apply: (packet: Packet) => Applied;
  readonly deviceStatePath: string;
  readonly close: () => void;
}

/** `blocks` in the order of the offer: a packet names a block by its index there. */
export const openReceiver = (blocks: ReadonlyArray<RamBlock>, deviceStatePath: string): Receiver => {
  const writers: RamWriter[] = [];
  let fd = -1;
  const close = (): void => {
    for (const writer of writers) writer.close();
    if (fd !== -1) closeSync(fd);
    rmSync(deviceStatePath, { force: true });
  };
  try {
    for (const block of blocks) writers.push(openRamWriter(block));
    mkdirSync(dirname(deviceStatePath), { recursive: true, mode: 0o700 });
    rmSync(deviceStatePath, { force: true });
    fd = openSync(deviceStatePath, "wx", 0o600);
  } catch (error) {
    close();
    throw error;
  }
  return {
    deviceStatePath,
    apply: (packet) => (packet.kind === "pages" ? applyPages(writers, packet) : applySlice(fd, packet)),
    close,
  };
};

const applyPages = (writers: ReadonlyArray<RamWriter>, packet: PagesPacket): Applied => {
  const writer = writers[packet.block];
  if (writer === undefined) return { malformed: `block ${packet.block} of ${writers.length}` };
  const pagesOfBlock = writer.block.lengthBytes / PAGE_BYTES;
  const { runs } = packet;
  // Before the first byte is written: a packet that is wrong anywhere changes nothing.
  const last = runs.length === 0 ? 0 : runs[runs.length - 2]! + runs[runs.length - 1]!;
  if (last > pagesOfBlock) return { malformed: `page ${last - 1} of a block of ${pagesOfBlock} pages` };
  const payload = decompress(packet.compression, packet.payload, packet.rawBytes);
  if (isMalformed(payload)) return payload;
  let index = 0;
  let offset = 0;
  for (let r = 0; r < runs.length; r += 2) {
    const end = runs[r]! + runs[r + 1]!;
    // Neighbours of one kind are written, or zeroed, by one system call.
    for (let page = runs[r]!; page < end; ) {
      const zero = isZero(packet.zeroMap, index);
      let count = 1;
      while (page + count < end && isZero(packet.zeroMap, index + count) === zero) count++;
      if (zero) writer.zeroPages(page, count);
      else {
        writer.writePages(page, count, payload as Uint8Array, offset);
        offset += count * PAGE_BYTES;
      }
      page += count;
      index += count;
    }
  }
  return "applied";
};

const isZero = (zeroMap: Uint8Array, index: number): boolean => (zeroMap[index >>> 3]! & (1 << (index & 7))) !== 0;

const applySlice = (fd: number, packet: SlicePacket): Applied => {
  if (packet.stream !== 0) return { malformed: `device stream ${packet.stream} was not announced` };
  const payload = decompress(packet.compression, packet.payload, packet.rawBytes);
  if (isMalformed(payload)) return payload;
  const bytes = payload as Uint8Array;
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, packet.offset + done);
  return "applied";
};
