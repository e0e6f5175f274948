/**
 * The packet: what one message of a channel holds. Little-endian, fixed header, then metadata, then payload.
 *
 *      0 u32 magic "GWP1"      4 u8 version    5 u8 kind       6 u8 compression   7 u8 overflow
 *      8 u64 migration        16 u32 epoch    20 u32 round    24 u32 item        28 u16 channel   30 u16 block or stream
 *     32 u32 channel epoch    36 u16 runs     38 u16 pages    40 u16 normal      42 u16 short pages
 *     44 u32 payload bytes    48 u64 offset of a slice        56 u32 raw bytes   60 u32 crc32 (of all but this field)
 *     64 runs x { u32 first page, u32 pages }, ceil(pages / 8) bytes of "page is zero", payload,
 *        short pages x 8 bytes (`short-page.ts`)
 *
 * The payload holds the pages that are not zero, one after the other: PAGE_BYTES of each, unless it is a short one.
 *
 * A check (kind 3) carries no pages, but what the destination must find in them: its payload is one crc32 for each page of
 * the runs, and it has no zero map.
 *
 * A packet is self-contained and idempotent: it may be lost, doubled or late (R1), and says itself whether it is still
 * wanted (R2). The decoder returns a reason instead of throwing, reads only inside `bytes`, and checks in the order
 * size, magic, version, lengths, checksum, content. Fields that a kind has no use for are 0: what one message says can be
 * written in one way only.
 */
import { crc32 } from "node:zlib";
import { tailCrc32 } from "./crc32.ts";
import {
  BLOCKS_MAX,
  CHANNELS_MAX,
  PACKET_PAGES_MAX,
  PAGE_BYTES,
  SEAL_ROOM_BYTES,
  SHORT_PAGE_BYTES,
  SLICE_BYTES_MAX,
  streamBytesMax,
} from "./limits.ts";
import { rawBytesOf, readShortPages, type ShortPage, writeShortPages } from "./short-page.ts";
import { PROTOCOL, versionRefusal } from "./version.ts";

const MAGIC = 0x31505747;
export const PACKET_HEADER_BYTES = 64;
const CRC_AT = 60;

/** How the payload is packed; the numbers are the wire's. */
export const COMPRESSIONS = ["none", "zlib", "zstd"] as const;
export type Compression = (typeof COMPRESSIONS)[number];

/** Who a packet belongs to: what every fence looks at. */
export interface Address {
  /** 16 hex digits. */
  readonly migration: string;
  readonly epoch: number;
  readonly round: number;
  /** Number of the work item within its round. */
  readonly item: number;
  readonly channel: number;
  readonly channelEpoch: number;
}

/** Pages of one block: `runs` holds pairs (first page, pages); bit i of `zeroMap` says that the i-th page is zero and has no payload. */
export interface PagesPacket extends Address {
  readonly kind: "pages";
  readonly block: number;
  readonly compression: Compression;
  readonly runs: Uint32Array;
  readonly pages: number;
  readonly normalPages: number;
  readonly zeroMap: Uint8Array;
  /** Ascending; all others that are not zero stand whole. */
  readonly short: ReadonlyArray<ShortPage>;
  /** Pages that stand whole though their base was at hand: a delta would not have been shorter. */
  readonly overflow: number;
  /** `rawBytes` long once unpacked. */
  readonly payload: Uint8Array;
  readonly rawBytes: number;
}

/** A slice of a device's state: `payload` belongs at `offset` of stream `stream`. */
export interface SlicePacket extends Address {
  readonly kind: "slice";
  readonly stream: number;
  readonly offset: number;
  readonly compression: Compression;
  readonly payload: Uint8Array;
  readonly rawBytes: number;
}

/** What pages of one block must hold: `digests[i]` is the crc32 of the i-th page of `runs`. */
export interface CheckPacket extends Address {
  readonly kind: "check";
  readonly block: number;
  readonly runs: Uint32Array;
  readonly pages: number;
  readonly digests: Uint32Array;
}

export type Packet = PagesPacket | SlicePacket | CheckPacket;

/** Why bytes are no packet; shown to the operator, never thrown. */
export interface Malformed {
  readonly kind: "malformed";
  readonly reason: string;
}
const malformed = (reason: string): Malformed => ({ kind: "malformed", reason });

/** Bytes in front of the payload of a packet with this many runs and pages. */
export const payloadOffset = (runs: number, pages: number): number =>
  PACKET_HEADER_BYTES + runs * 8 + ((pages + 7) >>> 3);

/**
 * Pages that a packet may hold where a message may have `maxPayloadBytes`, sealed or not: the worst case is a run for each page, none of
 * them zero or short.
 * 0: not even one page fits.
 */
export const packetPagesWithin = (maxPayloadBytes: number): number => {
  let pages = PACKET_PAGES_MAX;
  while (pages > 0 && payloadOffset(pages, pages) + pages * PAGE_BYTES + SEAL_ROOM_BYTES > maxPayloadBytes) pages--;
  return pages;
};

/** What a message must be able to hold for one page to be moved, bytes: the least that `max_payload` may be, wherever packets pass. */
export const MESSAGE_BYTES_MIN = payloadOffset(1, 1) + PAGE_BYTES;

const writeHeader = (view: DataView, kind: number, a: Address, compression: Compression, index: number): void => {
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, PROTOCOL.major);
  view.setUint8(5, kind);
  view.setUint8(6, COMPRESSIONS.indexOf(compression));
  view.setUint8(7, 0);
  writeId(view, 8, a.migration);
  view.setUint32(16, a.epoch, true);
  view.setUint32(20, a.round, true);
  view.setUint32(24, a.item, true);
  view.setUint16(28, a.channel, true);
  view.setUint16(30, index, true);
  view.setUint32(32, a.channelEpoch, true);
  view.setUint16(42, 0, true);
};

/** Writes 16 hex digits as 8 bytes. */
export const writeId = (view: DataView, at: number, hex: string): void => {
  view.setUint32(at, Number.parseInt(hex.slice(0, 8), 16), true);
  view.setUint32(at + 4, Number.parseInt(hex.slice(8, 16), 16), true);
};
/** The inverse of `writeId`. */
export const readId = (view: DataView, at: number): string =>
  view.getUint32(at, true).toString(16).padStart(8, "0") +
  view
    .getUint32(at + 4, true)
    .toString(16)
    .padStart(8, "0");

const seal = (bytes: Uint8Array, view: DataView): void => {
  view.setUint32(CRC_AT, checksum(bytes), true);
};
const checksum = (bytes: Uint8Array): number =>
  crc32(bytes.subarray(PACKET_HEADER_BYTES), crc32(bytes.subarray(0, CRC_AT))) >>> 0;

/**
 * Completes a packet of pages whose payload already stands at `payloadOffset(runs.length / 2, pages)` of `buffer`, and returns
 * the bytes to send. Nothing is copied: whoever gathers the pages puts them where they belong.
 */
export const sealPages = (
  buffer: Uint8Array,
  packet: Omit<PagesPacket, "kind" | "payload"> & { readonly payloadBytes: number },
): Uint8Array => {
  const { short } = packet;
  const shortStart = payloadOffset(packet.runs.length / 2, packet.pages) + packet.payloadBytes;
  const bytes = buffer.subarray(0, shortStart + short.length * SHORT_PAGE_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  writeHeader(view, 1, packet, packet.compression, packet.block);
  view.setUint8(7, packet.overflow);
  view.setUint16(42, short.length, true);
  view.setUint16(36, packet.runs.length / 2, true);
  view.setUint16(38, packet.pages, true);
  view.setUint16(40, packet.normalPages, true);
  view.setUint32(44, packet.payloadBytes, true);
  view.setFloat64(48, 0, true);
  view.setUint32(56, packet.rawBytes, true);
  for (let i = 0; i < packet.runs.length; i++) view.setUint32(PACKET_HEADER_BYTES + i * 4, packet.runs[i]!, true);
  bytes.set(packet.zeroMap, PACKET_HEADER_BYTES + packet.runs.length * 4);
  writeShortPages(view, shortStart, short);
  seal(bytes, view);
  return bytes;
};

/** Completes a slice whose payload already stands at PACKET_HEADER_BYTES of `buffer`. */
export const sealSlice = (
  buffer: Uint8Array,
  packet: Omit<SlicePacket, "kind" | "payload"> & { readonly payloadBytes: number },
): Uint8Array => {
  const bytes = buffer.subarray(0, PACKET_HEADER_BYTES + packet.payloadBytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  writeHeader(view, 2, packet, packet.compression, packet.stream);
  view.setUint16(36, 0, true);
  view.setUint16(38, 0, true);
  view.setUint16(40, 0, true);
  view.setUint32(44, packet.payloadBytes, true);
  view.setFloat64(48, packet.offset, true);
  view.setUint32(56, packet.rawBytes, true);
  seal(bytes, view);
  return bytes;
};

/** A check, whole. */
export const sealCheck = (buffer: Uint8Array, packet: Omit<CheckPacket, "kind">): Uint8Array => {
  const start = PACKET_HEADER_BYTES + packet.runs.length * 4;
  const bytes = buffer.subarray(0, start + packet.pages * 4);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  writeHeader(view, 3, packet, "none", packet.block);
  view.setUint16(36, packet.runs.length / 2, true);
  view.setUint16(38, packet.pages, true);
  view.setUint16(40, 0, true);
  view.setUint32(44, packet.pages * 4, true);
  view.setFloat64(48, 0, true);
  view.setUint32(56, packet.pages * 4, true);
  for (let i = 0; i < packet.runs.length; i++) view.setUint32(PACKET_HEADER_BYTES + i * 4, packet.runs[i]!, true);
  for (let i = 0; i < packet.pages; i++) view.setUint32(start + i * 4, packet.digests[i]!, true);
  seal(bytes, view);
  return bytes;
};

/** The crc32 of a slice's payload, for nothing: `decodePacket` has found the packet's own to be right. */
export const slicePayloadCrc32 = (packet: Uint8Array): number => {
  const whole = new DataView(packet.buffer, packet.byteOffset, packet.byteLength).getUint32(CRC_AT, true);
  return tailCrc32(whole, crc32(packet.subarray(0, CRC_AT)), packet.length - PACKET_HEADER_BYTES);
};

/** Reads a packet. `payload` and `zeroMap` are views of `bytes`. */
export const decodePacket = (bytes: Uint8Array): Packet | Malformed => {
  if (bytes.length < PACKET_HEADER_BYTES) return malformed(`${bytes.length} bytes are less than a header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) return malformed("wrong magic");
  const otherVersion = versionRefusal("its sender", { major: view.getUint8(4) });
  if (otherVersion !== null) return malformed(otherVersion);
  const kind = view.getUint8(5);
  const compression = COMPRESSIONS[view.getUint8(6)];
  if (compression === undefined) return malformed(`unknown compression ${view.getUint8(6)}`);
  const shortCount = view.getUint16(42, true);
  if (kind !== 1 && (view.getUint8(7) !== 0 || shortCount !== 0)) return malformed("short pages where there are none");
  const runCount = view.getUint16(36, true);
  const pages = view.getUint16(38, true);
  const payloadBytes = view.getUint32(44, true);
  const rawBytes = view.getUint32(56, true);
  if (pages > PACKET_PAGES_MAX || runCount > pages) return malformed(`${runCount} runs of ${pages} pages`);
  const start = kind === 3 ? PACKET_HEADER_BYTES + runCount * 8 : payloadOffset(runCount, pages);
  const end = start + payloadBytes + shortCount * SHORT_PAGE_BYTES;
  if (bytes.length !== end) return malformed(`${bytes.length} bytes, the header says ${end}`);
  if (rawBytes > SLICE_BYTES_MAX) return malformed(`${rawBytes} raw bytes`);
  if (compression === "none" && rawBytes !== payloadBytes)
    return malformed("raw and payload bytes differ without compression");
  if (view.getUint32(CRC_AT, true) !== checksum(bytes)) return malformed("wrong checksum");
  const channel = view.getUint16(28, true);
  const address: Address = {
    migration: readId(view, 8),
    epoch: view.getUint32(16, true),
    round: view.getUint32(20, true),
    item: view.getUint32(24, true),
    channel,
    channelEpoch: view.getUint32(32, true),
  };
  if (channel >= CHANNELS_MAX) return malformed(`channel ${channel}`);
  if (address.epoch === 0 || address.round === 0) return malformed("epoch or round 0");
  const payload = bytes.subarray(start, start + payloadBytes);
  const index = view.getUint16(30, true);
  if (kind === 1) return decodePages(bytes, view, address, index, compression, runCount, pages, rawBytes, payload);
  if (kind === 2) return decodeSlice(view, address, index, compression, pages, rawBytes, payload);
  if (kind === 3) return decodeCheck(view, address, index, compression, runCount, pages, rawBytes);
  return malformed(`unknown kind ${kind}`);
};

const decodePages = (
  bytes: Uint8Array,
  view: DataView,
  address: Address,
  block: number,
  compression: Compression,
  runCount: number,
  pages: number,
  rawBytes: number,
  payload: Uint8Array,
): PagesPacket | Malformed => {
  const runs = decodeRuns(view, block, runCount, pages);
  if ("kind" in runs) return runs;
  const mapStart = PACKET_HEADER_BYTES + runCount * 8;
  const zeroMap = bytes.subarray(mapStart, mapStart + ((pages + 7) >>> 3));
  let zeros = 0;
  for (let i = 0; i < zeroMap.length * 8; i++) {
    if ((zeroMap[i >>> 3]! & (1 << (i & 7))) === 0) continue;
    if (i >= pages) return malformed("zero map marks a page that is not there");
    zeros++;
  }
  const normalPages = view.getUint16(40, true);
  if (normalPages !== pages - zeros)
    return malformed(`${normalPages} normal pages, the zero map leaves ${pages - zeros}`);
  const short = readShortPages(view, payload.byteOffset - bytes.byteOffset + payload.length, pages, zeroMap);
  if ("kind" in short) return short;
  const overflow = view.getUint8(7);
  const deltas = short.reduce((sum, page) => sum + (page.how === "delta" ? 1 : 0), 0);
  if (overflow > normalPages - deltas) return malformed(`${overflow} pages of ${normalPages} with a base`);
  if (rawBytes !== rawBytesOf(normalPages, short))
    return malformed(`${rawBytes} raw bytes for ${normalPages} pages, ${short.length} of them short`);
  return {
    kind: "pages",
    ...address,
    block,
    compression,
    runs,
    pages,
    normalPages,
    zeroMap,
    short,
    overflow,
    payload,
    rawBytes,
  };
};

/** The runs of a packet that speaks of pages. */
const decodeRuns = (view: DataView, block: number, runCount: number, pages: number): Uint32Array | Malformed => {
  if (pages === 0) return malformed("no pages");
  if (!Object.is(view.getFloat64(48, true), 0)) return malformed("pages with an offset");
  if (block >= BLOCKS_MAX) return malformed(`block ${block}`);
  const runs = new Uint32Array(runCount * 2);
  let sum = 0;
  let next = 0;
  for (let r = 0; r < runCount; r++) {
    const first = view.getUint32(PACKET_HEADER_BYTES + r * 8, true);
    const count = view.getUint32(PACKET_HEADER_BYTES + r * 8 + 4, true);
    // Ascending and disjoint: no page stands twice in a packet, and a hostile one cannot make us write in circles.
    if (count === 0 || count > pages || first < next)
      return malformed(`run ${r} starts at page ${first} with ${count} pages`);
    runs[r * 2] = first;
    runs[r * 2 + 1] = count;
    sum += count;
    next = first + count;
  }
  return sum === pages ? runs : malformed(`runs hold ${sum} pages, the header says ${pages}`);
};

const decodeCheck = (
  view: DataView,
  address: Address,
  block: number,
  compression: Compression,
  runCount: number,
  pages: number,
  rawBytes: number,
): CheckPacket | Malformed => {
  const runs = decodeRuns(view, block, runCount, pages);
  if ("kind" in runs) return runs;
  if (compression !== "none" || view.getUint16(40, true) !== 0) return malformed("a check with pages in it");
  if (rawBytes !== pages * 4) return malformed(`${rawBytes} bytes of digests for ${pages} pages`);
  const start = PACKET_HEADER_BYTES + runCount * 8;
  const digests = new Uint32Array(pages);
  for (let i = 0; i < pages; i++) digests[i] = view.getUint32(start + i * 4, true);
  return { kind: "check", ...address, block, runs, pages, digests };
};

const decodeSlice = (
  view: DataView,
  address: Address,
  stream: number,
  compression: Compression,
  pages: number,
  rawBytes: number,
  payload: Uint8Array,
): SlicePacket | Malformed => {
  const offset = view.getFloat64(48, true);
  if (pages !== 0 || view.getUint16(40, true) !== 0) return malformed("a slice with pages");
  if (rawBytes === 0) return malformed("an empty slice");
  if (
    !Number.isSafeInteger(offset) ||
    offset < 0 ||
    Object.is(offset, -0) ||
    offset + rawBytes > streamBytesMax(stream)
  ) {
    return malformed(`slice of ${rawBytes} bytes at ${offset}`);
  }
  return { kind: "slice", ...address, stream, offset, compression, payload, rawBytes };
};
