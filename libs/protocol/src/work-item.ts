/**
 * The work item: what a producer asks a multifd worker to send. References travel here; the bytes travel once, from worker to
 * destination. It names memory only through the export directory that the producer made for this migration on its own
 * host (`<runtime>/ram/<migration>/<name>`), so that a forged item cannot make a worker read anything else.
 *
 *      0 u32 magic "GWI1"   4 u8 version   5 u8 kind (1 pages, 2 slice, 3 check)   6 u8 compression   7 u8 level
 *      8 u64 migration     16 u32 epoch   20 u32 round   24 u32 item   28 u16 channel   30 u16 block or stream
 *     32 u32 channel epoch   36 u16 runs   38 u8 zero pages (0 none, 1 worker, 2 given)   39 u8 lane (0 nats, 1 direct)   40 f64 deadline (ms since 1970)
 *     48 f64 offset of the block in its file, or of the slice   56 u32 bytes of a slice   60 u32 xbzrle (0 no, 1 yes)
 *     64 runs x { u32 first page, u32 pages }, then (given only) one bit per page: it is zero, then (xbzrle only) u32 slot of each page
 *        (all bits set: none), one bit per page: the destination holds what its slot does
 */
import { LANES, type Lane } from "./direct-lane.ts";
import { BLOCKS_MAX, CHANNELS_MAX, PACKET_PAGES_MAX, SLICE_BYTES_MAX, streamBytesMax } from "./limits.ts";
import { type Address, COMPRESSIONS, type Compression, type Malformed, readId, writeId } from "./packet.ts";
import { PROTOCOL, versionRefusal } from "./version.ts";

const MAGIC = 0x31495747;
const HEADER_BYTES = 64;
/** The highest level each library takes; QEMU's parameters end there, too. A forged one must not reach the library. */
const LEVEL_MAX: Readonly<Record<Compression, number>> = { none: 20, zlib: 9, zstd: 20 };

interface ItemBase extends Address {
  readonly compression: Compression;
  readonly level: number;
  /** Wall clock of the host, ms: a worker that wakes up later drops the item (R7). */
  readonly deadline: number;
  /** By which its packet shall travel, if it can. */
  readonly lane: Lane;
}
/** A page that is kept nowhere. */
export const NO_SLOT = 0xffff_ffff;

/** Capability `xbzrle`: where the worker keeps what it sends of each page, and of which it may send a delta. */
export interface XbzrleItem {
  /** Of each page of the item its slot in the cache of the migration, or NO_SLOT. */
  readonly slots: Uint32Array;
  /** Bit i: what the slot of the i-th page holds is what the destination was last known to hold. */
  readonly held: Uint8Array;
}
export interface PagesItem extends ItemBase {
  readonly kind: "pages";
  readonly block: number;
  /** Where the block starts in its file, bytes. */
  readonly fileOffset: number;
  /** `zero-page-detection`: nobody looks (none), the worker does (multifd), or the producer did and says which (legacy). */
  readonly zeroPages: "none" | "worker" | Uint8Array;
  /** Pairs (first page, pages), ascending. */
  readonly runs: Uint32Array;
  /** Null: its pages go whole, and are not kept. */
  readonly xbzrle: XbzrleItem | null;
}
export interface SliceItem extends ItemBase {
  readonly kind: "slice";
  readonly stream: number;
  readonly offset: number;
  readonly bytes: number;
}
/** Asks for a check of pages: their digests travel, not they. */
export interface CheckItem extends ItemBase {
  readonly kind: "check";
  readonly block: number;
  readonly fileOffset: number;
  readonly runs: Uint32Array;
}
export type WorkItem = PagesItem | SliceItem | CheckItem;

/** State of a VFIO device: its producer, and its destination, are VFIO agents. Stream 0 is the guest's own device state. */
export const isOfDevice = (item: WorkItem): boolean => item.kind === "slice" && item.stream !== 0;

const KINDS = { pages: 1, slice: 2, check: 3 } as const;

export const encodeWorkItem = (item: WorkItem): Uint8Array => {
  const runs = item.kind === "slice" ? new Uint32Array(0) : item.runs;
  const zeroPages = item.kind === "pages" ? item.zeroPages : "none";
  const given = typeof zeroPages === "string" ? new Uint8Array(0) : zeroPages;
  const xbzrle = item.kind === "pages" ? item.xbzrle : null;
  const slotsStart = HEADER_BYTES + runs.length * 4 + given.length;
  const bytes = new Uint8Array(slotsStart + (xbzrle === null ? 0 : xbzrle.slots.length * 4 + xbzrle.held.length));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, PROTOCOL.major);
  view.setUint8(5, KINDS[item.kind]);
  view.setUint8(6, COMPRESSIONS.indexOf(item.compression));
  view.setUint8(7, item.level);
  writeId(view, 8, item.migration);
  view.setUint32(16, item.epoch, true);
  view.setUint32(20, item.round, true);
  view.setUint32(24, item.item, true);
  view.setUint16(28, item.channel, true);
  view.setUint16(30, item.kind === "slice" ? item.stream : item.block, true);
  view.setUint32(32, item.channelEpoch, true);
  view.setUint16(36, runs.length / 2, true);
  view.setUint8(38, zeroPages === "none" ? 0 : zeroPages === "worker" ? 1 : 2);
  view.setUint8(39, LANES.indexOf(item.lane));
  view.setFloat64(40, item.deadline, true);
  view.setFloat64(48, item.kind === "slice" ? item.offset : item.fileOffset, true);
  view.setUint32(56, item.kind === "slice" ? item.bytes : 0, true);
  for (let i = 0; i < runs.length; i++) view.setUint32(HEADER_BYTES + i * 4, runs[i]!, true);
  bytes.set(given, HEADER_BYTES + runs.length * 4);
  if (xbzrle !== null) {
    view.setUint32(60, 1, true);
    for (let i = 0; i < xbzrle.slots.length; i++) view.setUint32(slotsStart + i * 4, xbzrle.slots[i]!, true);
    bytes.set(xbzrle.held, slotsStart + xbzrle.slots.length * 4);
  }
  return bytes;
};

const malformed = (reason: string): Malformed => ({ kind: "malformed", reason });

/** Reads a work item; never throws, reads only inside `bytes`. */
export const decodeWorkItem = (bytes: Uint8Array): WorkItem | Malformed => {
  if (bytes.length < HEADER_BYTES) return malformed(`${bytes.length} bytes are less than a header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) return malformed("wrong magic");
  const otherVersion = versionRefusal("its sender", { major: view.getUint8(4) });
  if (otherVersion !== null) return malformed(otherVersion);
  const kind = view.getUint8(5);
  const compression = COMPRESSIONS[view.getUint8(6)];
  const runCount = view.getUint16(36, true);
  const offset = view.getFloat64(48, true);
  const sliceBytes = view.getUint32(56, true);
  const channel = view.getUint16(28, true);
  const index = view.getUint16(30, true);
  const mode = view.getUint8(38);
  if (compression === undefined) return malformed(`unknown compression ${view.getUint8(6)}`);
  if (bytes.length < HEADER_BYTES + runCount * 8) return malformed(`${bytes.length} bytes for ${runCount} runs`);
  if (channel >= CHANNELS_MAX) return malformed(`channel ${channel}`);
  if (view.getUint8(7) > LEVEL_MAX[compression]) return malformed(`${compression} level ${view.getUint8(7)}`);
  const lane = LANES[view.getUint8(39)];
  if (lane === undefined) return malformed(`unknown lane ${view.getUint8(39)}`);
  const xbzrleMode = view.getUint32(60, true);
  if (xbzrleMode > 1) return malformed(`xbzrle ${xbzrleMode}`);
  if (!Number.isSafeInteger(offset) || offset < 0 || Object.is(offset, -0)) return malformed(`offset ${offset}`);
  const base = {
    migration: readId(view, 8),
    epoch: view.getUint32(16, true),
    round: view.getUint32(20, true),
    item: view.getUint32(24, true),
    channel,
    channelEpoch: view.getUint32(32, true),
    compression,
    level: view.getUint8(7),
    deadline: view.getFloat64(40, true),
    lane,
  };
  if (!Number.isFinite(base.deadline)) return malformed("no deadline");
  if (base.epoch === 0 || base.round === 0) return malformed("epoch or round 0");
  if (kind === KINDS.slice) {
    if (
      bytes.length !== HEADER_BYTES ||
      runCount !== 0 ||
      mode !== 0 ||
      xbzrleMode !== 0 ||
      sliceBytes === 0 ||
      sliceBytes > SLICE_BYTES_MAX ||
      offset + sliceBytes > streamBytesMax(index)
    ) {
      return malformed(`slice of ${sliceBytes} bytes at ${offset}`);
    }
    return { kind: "slice", ...base, stream: index, offset, bytes: sliceBytes };
  }
  if (kind !== KINDS.pages && kind !== KINDS.check) return malformed(`unknown kind ${kind}`);
  if (index >= BLOCKS_MAX) return malformed(`block ${index}`);
  if (sliceBytes !== 0) return malformed("pages with the bytes of a slice");
  const runs = new Uint32Array(runCount * 2);
  let pages = 0;
  let next = 0;
  for (let r = 0; r < runCount; r++) {
    const first = view.getUint32(HEADER_BYTES + r * 8, true);
    const count = view.getUint32(HEADER_BYTES + r * 8 + 4, true);
    if (count === 0 || count > PACKET_PAGES_MAX || first < next) return malformed(`run ${r}`);
    runs[r * 2] = first;
    runs[r * 2 + 1] = count;
    pages += count;
    next = first + count;
  }
  if (pages === 0 || pages > PACKET_PAGES_MAX) return malformed(`${pages} pages`);
  if (mode > 2) return malformed(`zero pages ${mode}`);
  const mapBytes = (pages + 7) >>> 3;
  const givenBytes = mode === 2 ? mapBytes : 0;
  const slotsStart = HEADER_BYTES + runCount * 8 + givenBytes;
  const end = slotsStart + (xbzrleMode === 1 ? pages * 4 + mapBytes : 0);
  if (bytes.length !== end) return malformed(`${bytes.length} bytes with zero map and slots, not ${end}`);
  const given = bytes.subarray(HEADER_BYTES + runCount * 8, slotsStart);
  if (mode === 2 && marksBeyond(given, pages)) return malformed("zero map marks a page that is not there");
  if (kind === KINDS.check) {
    if (mode !== 0 || compression !== "none" || xbzrleMode !== 0)
      return malformed("a check that looks for zero pages, compresses, or keeps pages");
    return { kind: "check", ...base, block: index, fileOffset: offset, runs };
  }
  const zeroPages = mode === 0 ? "none" : mode === 1 ? "worker" : given;
  const xbzrle = xbzrleMode === 1 ? decodeXbzrle(view, slotsStart, pages) : null;
  if (xbzrle !== null && "kind" in xbzrle) return xbzrle;
  return { kind: "pages", ...base, block: index, fileOffset: offset, zeroPages, runs, xbzrle };
};

/** A map of one bit for each of `pages` pages has bits behind them. */
const marksBeyond = (map: Uint8Array, pages: number): boolean =>
  (pages & 7) !== 0 && map[map.length - 1]! >>> (pages & 7) !== 0;

const decodeXbzrle = (view: DataView, at: number, pages: number): XbzrleItem | Malformed => {
  const slots = new Uint32Array(pages);
  for (let i = 0; i < pages; i++) slots[i] = view.getUint32(at + i * 4, true);
  const held = new Uint8Array(view.buffer, view.byteOffset + at + pages * 4, (pages + 7) >>> 3);
  if (marksBeyond(held, pages)) return malformed("a page is held that is not there");
  for (let i = 0; i < pages; i++) {
    if (slots[i] === NO_SLOT && (held[i >>> 3]! & (1 << (i & 7))) !== 0)
      return malformed(`page ${i} is held and has no slot`);
  }
  return { slots, held };
};
