/** From a work item to the packet it asks for. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import {
  blockExport,
  compress,
  deviceStateExport,
  deviceStreamExport,
  digestPages,
  exportedBlock,
  isAddressedTo,
  openRamReader,
  type RamReader,
  sentPagesExport,
} from "@godwit/memory";
import {
  type CheckItem,
  type Compression,
  isOfDevice,
  PACKET_HEADER_BYTES,
  PACKET_PAGES_MAX,
  type PagesItem,
  payloadOffset,
  SLICE_BYTES_MAX,
  type SliceItem,
  sealCheck,
  sealPages,
  sealSlice,
  type WorkItem,
} from "@godwit/protocol";
import { gatherPages } from "./kernel/gather.ts";
import { type SentPages, shortenPages } from "./kernel/shorten.ts";
import { openSentPages } from "./sent-pages.ts";

/** Room for the largest packet. Compressed payloads that would be longer than the pages themselves are sent as they are. */
export const PACKET_BYTES_MAX = payloadOffset(PACKET_PAGES_MAX, PACKET_PAGES_MAX) + SLICE_BYTES_MAX;

/** Files kept open: the blocks of a few migrations; opening one costs 20 us, so forgetting one is cheap. */
const OPEN_FILES_MAX = 64;
/** A file that no item has asked for in so long, or twice as long at most, is closed, ms: while it is open, the memory of a guest that has left is not freed. */
const IDLE_MS = 2000;

/** Packs items into buffers of the caller's. It keeps files open between items, and nothing else: any worker can take any item. */
export interface Packer {
  /**
   * The packet's bytes, a view of `buffer` (PACKET_BYTES_MAX long). Throws when the memory cannot be read, or does not go to that
   * node.
   */
  readonly pack: (item: WorkItem, destination: string, buffer: Uint8Array) => Uint8Array;
  readonly close: () => void;
}

export const makePacker = (runtimeDirectory: string): Packer => {
  const files = new Map<string, { readonly file: { readonly close: () => void }; used: boolean }>();
  const forget = (path: string): void => {
    files.get(path)?.file.close();
    files.delete(path);
  };
  let sweeping: NodeJS.Timeout | null = null;
  const stopSweeping = (): void => {
    if (sweeping !== null) clearInterval(sweeping);
    sweeping = null;
  };
  const sweep = (): void => {
    for (const [path, open] of files) {
      if (!open.used) forget(path);
      open.used = false;
    }
    if (files.size === 0) stopSweeping();
  };
  /** The file that is open already, if `isRight` says so, else one that is opened now. A path is always opened by the same function. */
  const keep = <A extends { readonly close: () => void }>(
    path: string,
    open: () => A,
    isRight: (file: A) => boolean = () => true,
  ): A => {
    const known = files.get(path);
    if (known !== undefined && isRight(known.file as A)) {
      known.used = true;
      return known.file as A;
    }
    forget(path);
    if (files.size >= OPEN_FILES_MAX) for (const oldest of [...files.keys()].slice(0, 1)) forget(oldest);
    const file = open();
    files.set(path, { file, used: true });
    sweeping ??= setInterval(sweep, IDLE_MS).unref();
    return file;
  };
  const readerOf = ({ migration, epoch, block, fileOffset }: PagesItem | CheckItem): RamReader => {
    const path = blockExport(runtimeDirectory, migration, epoch, block);
    return keep(
      path,
      () => openRamReader(exportedBlock(path, fileOffset)),
      // An item that puts the block elsewhere, forged or not, must not decide where the next one reads.
      (reader) => reader.block.fileOffset === fileOffset,
    );
  };
  const sentPagesOf = ({ migration, epoch, xbzrle }: PagesItem): SentPages | null => {
    if (xbzrle === null) return null;
    const path = sentPagesExport(runtimeDirectory, migration, epoch);
    return keep(path, () => openSentPages(path));
  };
  const addressed = new Set<string>();
  /** Asked of the file system once: a migration never goes elsewhere than it began to. */
  const checkAddress = (item: WorkItem, destination: string): void => {
    const folder = isOfDevice(item) ? "vfio" : "ram";
    const address = `${folder} ${item.migration} ${destination}`;
    if (addressed.has(address)) return;
    if (!isAddressedTo(runtimeDirectory, folder, item.migration, destination))
      throw new Error(`migration ${item.migration} does not go from here to node ${destination}`);
    if (addressed.size >= OPEN_FILES_MAX) addressed.clear();
    addressed.add(address);
  };
  return {
    pack: (item, destination, buffer) => {
      checkAddress(item, destination);
      if (item.kind === "slice") return packSlice(item, runtimeDirectory, buffer);
      if (item.kind === "check") return packCheck(item, readerOf(item), buffer);
      // One after the other: either may be closed for want of room when the other is opened.
      return packPages(
        item,
        () => readerOf(item),
        () => sentPagesOf(item),
        buffer,
      );
    },
    close: () => {
      stopSweeping();
      for (const path of [...files.keys()]) forget(path);
    },
  };
};

/**
 * What is compressed for a try, bytes: some from the front, the middle and the end of a payload. Below SAMPLED_BYTES_MIN a try would cost as much as the
 * payload itself.
 */
const SAMPLE_PIECE_BYTES = 4096;
const SAMPLE_PIECES = 4;
const SAMPLED_BYTES_MIN = 4 * SAMPLE_PIECES * SAMPLE_PIECE_BYTES;
/** A sample that stays longer than this part of it is of bytes that do not compress: the payload goes as it is. */
const SAMPLE_RATIO_MAX = 0.95;
const sample = new Uint8Array(SAMPLE_PIECES * SAMPLE_PIECE_BYTES);

/** Whether compressing a payload may be worth its time: random, encrypted and compressed bytes take longest, and gain nothing. */
const mayCompress = (compression: Exclude<Compression, "none">, level: number, payload: Uint8Array): boolean => {
  if (payload.length < SAMPLED_BYTES_MIN) return true;
  const step = (payload.length - SAMPLE_PIECE_BYTES) / (SAMPLE_PIECES - 1);
  for (let piece = 0; piece < SAMPLE_PIECES; piece++) {
    const at = Math.floor((piece * step) / SAMPLE_PIECE_BYTES) * SAMPLE_PIECE_BYTES;
    sample.set(payload.subarray(at, at + SAMPLE_PIECE_BYTES), piece * SAMPLE_PIECE_BYTES);
  }
  return compress(compression, level, sample).length <= SAMPLE_RATIO_MAX * sample.length;
};

/** Compresses `buffer[start .. start + rawBytes)` in place, unless that saves nothing. */
const squeeze = (
  item: { readonly compression: Compression; readonly level: number },
  buffer: Uint8Array,
  start: number,
  rawBytes: number,
): { readonly compression: Compression; readonly payloadBytes: number } => {
  if (item.compression === "none" || rawBytes === 0) return { compression: "none", payloadBytes: rawBytes };
  const payload = buffer.subarray(start, start + rawBytes);
  if (!mayCompress(item.compression, item.level, payload)) return { compression: "none", payloadBytes: rawBytes };
  const packed = compress(item.compression, item.level, payload);
  if (packed.length >= rawBytes) return { compression: "none", payloadBytes: rawBytes };
  buffer.set(packed, start);
  return { compression: item.compression, payloadBytes: packed.length };
};

/** Pages of runs, pairs (first page, pages). */
const pagesIn = (runs: Uint32Array): number => {
  let pages = 0;
  for (let r = 1; r < runs.length; r += 2) pages += runs[r]!;
  return pages;
};

const packPages = (
  item: PagesItem,
  reader: () => RamReader,
  sent: () => SentPages | null,
  buffer: Uint8Array,
): Uint8Array => {
  const pages = pagesIn(item.runs);
  const start = payloadOffset(item.runs.length / 2, pages);
  const gathered = gatherPages(reader(), item.runs, pages, item.zeroPages, buffer, start);
  const shortened = shortenPages(buffer, start, pages, gathered, item.xbzrle, sent());
  return sealPages(buffer, {
    ...item,
    ...gathered,
    ...shortened,
    pages,
    ...squeeze(item, buffer, start, shortened.rawBytes),
  });
};

const packCheck = (item: CheckItem, reader: RamReader, buffer: Uint8Array): Uint8Array => {
  const pages = pagesIn(item.runs);
  // The pages are read to where the packet will be: it is shorter than any of them.
  const digests = digestPages(reader, item.runs, pages, buffer);
  return sealCheck(buffer, { ...item, pages, digests });
};

/** Stream 0 is the guest's own device state, the others are of its VFIO devices: a ring, as long as its file (arena.ts of the agent). */
const streamPath = ({ migration, epoch, stream }: SliceItem, runtimeDirectory: string): string =>
  stream === 0
    ? deviceStateExport(runtimeDirectory, migration, epoch)
    : deviceStreamExport(runtimeDirectory, migration, epoch, stream);

const packSlice = (item: SliceItem, runtimeDirectory: string, buffer: Uint8Array): Uint8Array => {
  const fd = openSync(streamPath(item, runtimeDirectory), "r");
  try {
    const ringBytes = item.stream === 0 ? Number.POSITIVE_INFINITY : fstatSync(fd).size;
    for (let done = 0; done < item.bytes; ) {
      const at = (item.offset + done) % ringBytes;
      const wanted = Math.min(item.bytes - done, ringBytes - at);
      const count = wanted > 0 ? readSync(fd, buffer, PACKET_HEADER_BYTES + done, wanted, at) : 0;
      if (count === 0) throw new Error(`the device state ends before byte ${item.offset + item.bytes}`);
      done += count;
    }
  } finally {
    closeSync(fd);
  }
  const packed = squeeze(item, buffer, PACKET_HEADER_BYTES, item.bytes);
  return sealSlice(buffer, { ...item, rawBytes: item.bytes, ...packed });
};
