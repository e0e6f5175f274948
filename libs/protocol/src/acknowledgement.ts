/**
 * What comes back to a producer: `applied` from the destination (the only thing that retires an item, R1), `refused` from a worker
 * that could not read the memory, so that the producer need not wait for a time-out, and `differs` from a destination whose
 * memory does not hold what a check says, or what the deltas of an item were made for.
 *
 *      0 u32 magic "GWA1"   4 u8 version   5 u8 kind (1 applied, 2 refused, 3 differs)   6 u16 items
 *      8 u64 migration     16 u32 epoch   20 u32 round   24 u64 incarnation of the sender of this message
 *     32 u32 normal pages   36 u32 bytes on the wire (sums over the items; 0 when refused)
 *     40 u32 pages that came as deltas   44 u32 bytes of these   48 u32 pages whose delta would not have been shorter (sums, too)
 *     52 items x u32, then (refused) the reason, UTF-8, or (differs, of one item) one bit per page of it: it differs
 */
import { ACK_ITEMS_MAX, PACKET_PAGES_MAX } from "./limits.ts";
import { type Malformed, readId, writeId } from "./packet.ts";
import { PROTOCOL, versionRefusal } from "./version.ts";

const MAGIC = 0x31415747;
const HEADER_BYTES = 52;
/** A worker's reason, bytes: a path and an errno. */
const REASON_BYTES_MAX = 512;

/** What capability `xbzrle` has saved, and not: pages that came as deltas, their bytes, and pages that came whole for want of a shorter delta. */
export interface XbzrleCount {
  readonly pages: number;
  readonly bytes: number;
  readonly overflow: number;
}
export const NO_XBZRLE: XbzrleCount = { pages: 0, bytes: 0, overflow: 0 };

export interface Acknowledgement {
  readonly kind: "applied" | "refused" | "differs";
  readonly migration: string;
  readonly epoch: number;
  readonly round: number;
  readonly incarnation: string;
  readonly items: Uint32Array;
  /** Pages with a payload, and packet bytes, of these items together: what the producer measures its bandwidth by. */
  readonly normalPages: number;
  readonly wireBytes: number;
  /** Of these items together. */
  readonly xbzrle: XbzrleCount;
  /** Empty unless `refused`. */
  readonly reason: string;
  /** Bit i: the i-th page of the item differs. Empty unless `differs`. */
  readonly differing: Uint8Array;
}

const KINDS = ["applied", "refused", "differs"] as const;
const NOTHING = new Uint8Array(0);

/** As many whole characters as fit. */
const reasonBytes = (reason: string): Uint8Array => {
  const room = new Uint8Array(REASON_BYTES_MAX);
  return room.subarray(0, new TextEncoder().encodeInto(reason, room).written);
};

export const encodeAcknowledgement = (ack: Acknowledgement): Uint8Array => {
  const tail = ack.kind === "differs" ? ack.differing : reasonBytes(ack.reason);
  const bytes = new Uint8Array(HEADER_BYTES + ack.items.length * 4 + tail.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, PROTOCOL.major);
  view.setUint8(5, KINDS.indexOf(ack.kind) + 1);
  view.setUint16(6, ack.items.length, true);
  writeId(view, 8, ack.migration);
  view.setUint32(16, ack.epoch, true);
  view.setUint32(20, ack.round, true);
  writeId(view, 24, ack.incarnation);
  view.setUint32(32, ack.normalPages, true);
  view.setUint32(36, ack.wireBytes, true);
  view.setUint32(40, ack.xbzrle.pages, true);
  view.setUint32(44, ack.xbzrle.bytes, true);
  view.setUint32(48, ack.xbzrle.overflow, true);
  for (let i = 0; i < ack.items.length; i++) view.setUint32(HEADER_BYTES + i * 4, ack.items[i]!, true);
  bytes.set(tail, HEADER_BYTES + ack.items.length * 4);
  return bytes;
};

const malformed = (reason: string): Malformed => ({ kind: "malformed", reason });

/** Reads an acknowledgement; never throws, reads only inside `bytes`. */
export const decodeAcknowledgement = (bytes: Uint8Array): Acknowledgement | Malformed => {
  if (bytes.length < HEADER_BYTES) return malformed(`${bytes.length} bytes are less than a header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) return malformed("wrong magic");
  const otherVersion = versionRefusal("its sender", { major: view.getUint8(4) });
  if (otherVersion !== null) return malformed(otherVersion);
  const kind = KINDS[view.getUint8(5) - 1];
  if (kind === undefined) return malformed(`unknown kind ${view.getUint8(5)}`);
  const count = view.getUint16(6, true);
  const behind = bytes.length - HEADER_BYTES - count * 4;
  if (count === 0 || count > ACK_ITEMS_MAX || behind < 0) return malformed(`${bytes.length} bytes for ${count} items`);
  const fits =
    kind === "applied"
      ? behind === 0
      : kind === "refused"
        ? behind <= REASON_BYTES_MAX
        : count === 1 && behind > 0 && behind <= PACKET_PAGES_MAX / 8;
  if (!fits) return malformed(`${behind} bytes behind the items`);
  const items = new Uint32Array(count);
  for (let i = 0; i < count; i++) items[i] = view.getUint32(HEADER_BYTES + i * 4, true);
  const tail = bytes.subarray(HEADER_BYTES + count * 4);
  return {
    kind,
    migration: readId(view, 8),
    epoch: view.getUint32(16, true),
    round: view.getUint32(20, true),
    incarnation: readId(view, 24),
    items,
    normalPages: view.getUint32(32, true),
    wireBytes: view.getUint32(36, true),
    xbzrle: {
      pages: view.getUint32(40, true),
      bytes: view.getUint32(44, true),
      overflow: view.getUint32(48, true),
    },
    reason: kind === "refused" ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(tail) : "",
    differing: kind === "differs" ? tail.slice() : NOTHING,
  };
};
