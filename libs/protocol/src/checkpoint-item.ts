/**
 * What a multifd worker is asked to do for a checkpoint, and what it answers. Pages do not travel: the worker copies them between the
 * guest's memory and the file, which lie on its host, and says which of them were zero.
 *
 *      0 u32 magic "GWF1"   4 u8 version   5 u8 kind (1 store, 2 fill)   6 u8 flags (1 direct I/O, 2 checksums, 4 holes)   7 u8 zero
 *      8 u64 save or restore   16 u32 round   20 u32 item   24 u16 channel   26 u16 block   28 u32 channel epoch
 *     32 f64 deadline (ms since 1970)   40 f64 offset of the block in its RAM file   48 f64 offset of its pages in the checkpoint
 *     56 u16 runs   58 zero   64 runs x { u32 first page, u32 pages }
 *
 * The answer, to the producer:
 *
 *      0 u32 magic "GWG1"   4 u8 version   5 u8 kind (1 done, 2 refused)   6 u16 sums
 *      8 u64 save or restore   16 u32 round   20 u32 item   24 u16 bytes of the zero map   26 zero   32 zero map, sums x u32
 *        or (refused) the reason, UTF-8
 *
 * Little-endian. Like a work item it names memory only through what its producer exported on its own host.
 */
import { BLOCKS_MAX, CHANNELS_MAX, FILE_ITEM_PAGES_MAX } from "./limits.ts";
import { type Malformed, readId, writeId } from "./packet.ts";
import { PROTOCOL, versionRefusal } from "./version.ts";

const ITEM_MAGIC = 0x31465747;
const ANSWER_MAGIC = 0x31475747;
const ITEM_HEADER_BYTES = 64;
const ANSWER_HEADER_BYTES = 32;
/** A worker's reason, bytes: a path and an errno. */
const REASON_BYTES_MAX = 512;

const FLAG = { direct: 1, sums: 2, holes: 4 } as const;
const KINDS = { store: 1, fill: 2 } as const;

export interface FileItem {
  /** `store`: from memory to the file; `fill`: from the file to memory. */
  readonly kind: keyof typeof KINDS;
  /** Of the save or restore: 16 hex digits. */
  readonly id: string;
  readonly round: number;
  readonly item: number;
  readonly channel: number;
  readonly channelEpoch: number;
  /** Wall clock of the host, ms. */
  readonly deadline: number;
  readonly block: number;
  /** Where the block begins in the file of the guest's memory, and where its pages begin in the checkpoint, bytes. */
  readonly fileOffset: number;
  readonly pagesOffset: number;
  /** Pairs (first page, pages), ascending; together at most FILE_ITEM_PAGES_MAX. */
  readonly runs: Uint32Array;
  /** Past the page cache. */
  readonly direct: boolean;
  /** Answer with a crc32 of each page, 0 for one that is zero. */
  readonly sums: boolean;
  /** `store`: something may stand where a page is zero now. */
  readonly holes: boolean;
}

export const encodeFileItem = (item: FileItem): Uint8Array => {
  const bytes = new Uint8Array(ITEM_HEADER_BYTES + item.runs.length * 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, ITEM_MAGIC, true);
  view.setUint8(4, PROTOCOL.major);
  view.setUint8(5, KINDS[item.kind]);
  view.setUint8(6, (item.direct ? FLAG.direct : 0) | (item.sums ? FLAG.sums : 0) | (item.holes ? FLAG.holes : 0));
  writeId(view, 8, item.id);
  view.setUint32(16, item.round, true);
  view.setUint32(20, item.item, true);
  view.setUint16(24, item.channel, true);
  view.setUint16(26, item.block, true);
  view.setUint32(28, item.channelEpoch, true);
  view.setFloat64(32, item.deadline, true);
  view.setFloat64(40, item.fileOffset, true);
  view.setFloat64(48, item.pagesOffset, true);
  view.setUint16(56, item.runs.length / 2, true);
  for (const [index, value] of item.runs.entries()) view.setUint32(ITEM_HEADER_BYTES + index * 4, value, true);
  return bytes;
};

const malformed = (reason: string): Malformed => ({ kind: "malformed", reason });
const isOffset = (value: number): boolean => Number.isSafeInteger(value) && value >= 0 && !Object.is(value, -0);

/** Reads an item; never throws, reads only inside `bytes`. */
export const decodeFileItem = (bytes: Uint8Array): FileItem | Malformed => {
  if (bytes.length < ITEM_HEADER_BYTES) return malformed(`${bytes.length} bytes are less than a header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== ITEM_MAGIC) return malformed("wrong magic");
  const otherVersion = versionRefusal("its sender", { major: view.getUint8(4) });
  if (otherVersion !== null) return malformed(otherVersion);
  const kind = view.getUint8(5);
  const flags = view.getUint8(6);
  const runCount = view.getUint16(56, true);
  const [deadline, fileOffset, pagesOffset] = [32, 40, 48].map((at) => view.getFloat64(at, true)) as [
    number,
    number,
    number,
  ];
  if (kind !== KINDS.store && kind !== KINDS.fill) return malformed(`unknown kind ${kind}`);
  if (flags > 7 || view.getUint8(7) !== 0 || view.getUint16(58, true) !== 0 || view.getUint32(60, true) !== 0)
    return malformed("reserved bits are set");
  if (view.getUint16(24, true) >= CHANNELS_MAX) return malformed(`channel ${view.getUint16(24, true)}`);
  if (view.getUint16(26, true) >= BLOCKS_MAX) return malformed(`block ${view.getUint16(26, true)}`);
  if (view.getUint32(16, true) === 0) return malformed("round 0");
  if (!Number.isFinite(deadline)) return malformed("no deadline");
  if (!isOffset(fileOffset) || !isOffset(pagesOffset)) return malformed(`offsets ${fileOffset}, ${pagesOffset}`);
  if (bytes.length !== ITEM_HEADER_BYTES + runCount * 8) return malformed(`${bytes.length} bytes for ${runCount} runs`);
  const runs = new Uint32Array(runCount * 2);
  let pages = 0;
  let next = 0;
  for (let r = 0; r < runCount; r++) {
    const first = view.getUint32(ITEM_HEADER_BYTES + r * 8, true);
    const count = view.getUint32(ITEM_HEADER_BYTES + r * 8 + 4, true);
    if (count === 0 || count > FILE_ITEM_PAGES_MAX || first < next) return malformed(`run ${r}`);
    runs[r * 2] = first;
    runs[r * 2 + 1] = count;
    pages += count;
    next = first + count;
  }
  if (pages === 0 || pages > FILE_ITEM_PAGES_MAX) return malformed(`${pages} pages`);
  return {
    kind: kind === KINDS.store ? "store" : "fill",
    id: readId(view, 8),
    round: view.getUint32(16, true),
    item: view.getUint32(20, true),
    channel: view.getUint16(24, true),
    block: view.getUint16(26, true),
    channelEpoch: view.getUint32(28, true),
    deadline,
    fileOffset,
    pagesOffset,
    runs,
    direct: (flags & FLAG.direct) !== 0,
    sums: (flags & FLAG.sums) !== 0,
    holes: (flags & FLAG.holes) !== 0,
  };
};

export type FileAnswer = {
  readonly id: string;
  readonly round: number;
  readonly item: number;
} & (
  | {
      readonly kind: "done";
      /** Bit i: the i-th page of the item is zero. Of a `fill`: empty. */
      readonly zeroMap: Uint8Array;
      /** A crc32 of each page, when they were asked for. */
      readonly sums: Uint32Array;
    }
  | { readonly kind: "refused"; readonly reason: string }
);

export const encodeFileAnswer = (answer: FileAnswer): Uint8Array => {
  const room = new Uint8Array(REASON_BYTES_MAX);
  const reason =
    answer.kind === "refused"
      ? room.subarray(0, new TextEncoder().encodeInto(answer.reason, room).written)
      : room.subarray(0, 0);
  const zeroMap = answer.kind === "done" ? answer.zeroMap : room.subarray(0, 0);
  const sums = answer.kind === "done" ? answer.sums : new Uint32Array(0);
  const bytes = new Uint8Array(ANSWER_HEADER_BYTES + zeroMap.length + sums.length * 4 + reason.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, ANSWER_MAGIC, true);
  view.setUint8(4, PROTOCOL.major);
  view.setUint8(5, answer.kind === "done" ? 1 : 2);
  view.setUint16(6, sums.length, true);
  writeId(view, 8, answer.id);
  view.setUint32(16, answer.round, true);
  view.setUint32(20, answer.item, true);
  view.setUint16(24, zeroMap.length, true);
  bytes.set(zeroMap, ANSWER_HEADER_BYTES);
  for (const [index, sum] of sums.entries())
    view.setUint32(ANSWER_HEADER_BYTES + zeroMap.length + index * 4, sum, true);
  bytes.set(reason, ANSWER_HEADER_BYTES + zeroMap.length + sums.length * 4);
  return bytes;
};

/** Reads an answer; never throws, reads only inside `bytes`. */
export const decodeFileAnswer = (bytes: Uint8Array): FileAnswer | Malformed => {
  if (bytes.length < ANSWER_HEADER_BYTES) return malformed(`${bytes.length} bytes are less than a header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== ANSWER_MAGIC) return malformed("wrong magic");
  const otherVersion = versionRefusal("its sender", { major: view.getUint8(4) });
  if (otherVersion !== null) return malformed(otherVersion);
  const kind = view.getUint8(5);
  const sumCount = view.getUint16(6, true);
  const mapBytes = view.getUint16(24, true);
  const behind = bytes.length - ANSWER_HEADER_BYTES;
  if (view.getUint16(26, true) !== 0 || view.getUint32(28, true) !== 0) return malformed("reserved bits are set");
  const base = { id: readId(view, 8), round: view.getUint32(16, true), item: view.getUint32(20, true) };
  if (kind === 2) {
    if (sumCount !== 0 || mapBytes !== 0 || behind > REASON_BYTES_MAX) return malformed(`a reason of ${behind} bytes`);
    return {
      ...base,
      kind: "refused",
      reason: new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(ANSWER_HEADER_BYTES)),
    };
  }
  if (kind !== 1) return malformed(`unknown kind ${kind}`);
  if (sumCount > FILE_ITEM_PAGES_MAX || mapBytes > FILE_ITEM_PAGES_MAX / 8 || behind !== mapBytes + sumCount * 4)
    return malformed(`${behind} bytes for a map of ${mapBytes} and ${sumCount} sums`);
  const sums = new Uint32Array(sumCount);
  for (let n = 0; n < sumCount; n++) sums[n] = view.getUint32(ANSWER_HEADER_BYTES + mapBytes + n * 4, true);
  return { ...base, kind: "done", zeroMap: bytes.slice(ANSWER_HEADER_BYTES, ANSWER_HEADER_BYTES + mapBytes), sums };
};
