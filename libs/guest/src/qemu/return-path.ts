/**
 * What a QEMU that takes a migration says to the source of it: the return path (docs/devel/migration/main.rst, migration/savevm.c of
 * QEMU 10.0). All numbers are big-endian.
 *
 *     u16 type   u16 n   n bytes
 *     1 SHUT               u32 0 or an error
 *     2 PONG               u32 the number of the ping
 *     3 REQ_PAGES_ID       u64 offset   u32 length   u8 n, name of the RAMBlock
 *     4 REQ_PAGES          u64 offset   u32 length               of the RAMBlock of the request before
 *     5 RECV_BITMAP        u8 n, name of the RAMBlock; behind the message: u64 size   size bytes   u64 end mark
 *     6 RESUME_ACK         u32 1
 *     7 SWITCHOVER_ACK
 */

export type ReturnMessage =
  /** Nothing follows. `error`: 0, or QEMU has failed. */
  | { readonly kind: "shut"; readonly error: number }
  | { readonly kind: "pong"; readonly ping: number }
  /** Bytes of a block that somebody waits for, or several do. */
  | { readonly kind: "request"; readonly block: string; readonly offset: number; readonly length: number }
  /** A bit for each page of a block that QEMU has put in place; the first page is the lowest bit of the first byte. */
  | { readonly kind: "received"; readonly block: string; readonly bits: Uint8Array }
  /** The connection has taken the place of one that broke. */
  | { readonly kind: "resumed" }
  | { readonly kind: "switchover-ack" };

export interface ReturnPathReader {
  /** The messages that are complete now, and what is wrong with the bytes behind them; after that nothing more is read. Never throws. */
  readonly push: (chunk: Uint8Array) => {
    readonly messages: ReadonlyArray<ReturnMessage>;
    readonly malformed: string | null;
  };
}

const TYPE = { shut: 1, pong: 2, requestOfBlock: 3, request: 4, bitmap: 5, resumeAck: 6, switchoverAck: 7 } as const;
const HEAD_BYTES = 4;
/** No message is longer, bytes; QEMU reads them so, too. */
const MESSAGE_BYTES_MAX = 512;
const REQUEST_BYTES = 12;
/** A bitmap of a block of 4 TiB, bytes: more than any guest has that can be moved in a day. */
const BITMAP_BYTES_MAX = 128 * 1024 ** 2;
const BITMAP_SIZE_BYTES = 8;
const BITMAP_END = 0x0123_4567_89ab_cdefn;
const BITMAP_END_BYTES = 8;
const RESUME_ACK_VALUE = 1;

export const makeReturnPathReader = (): ReturnPathReader => {
  /** The beginning of a message whose rest has not come. */
  let rest: Buffer = Buffer.alloc(0);
  let lastBlock: string | null = null;
  let malformed: string | null = null;
  /** A bitmap that is on its way, with its end mark. */
  let bitmap: { readonly block: string; readonly bytes: Buffer; filled: number } | null = null;

  /** Null: the rest of it follows. */
  const read = (type: number, body: Buffer): ReturnMessage | string | null => {
    switch (type) {
      case TYPE.shut:
        return body.length === 4 ? { kind: "shut", error: body.readUInt32BE(0) } : "its end";
      case TYPE.pong:
        return body.length === 4 ? { kind: "pong", ping: body.readUInt32BE(0) } : "the answer to a ping";
      case TYPE.requestOfBlock: {
        const nameBytes = body.length > REQUEST_BYTES ? body[REQUEST_BYTES]! : 0;
        if (nameBytes === 0 || body.length !== REQUEST_BYTES + 1 + nameBytes) return "a request for pages of a block";
        lastBlock = body.toString("utf8", REQUEST_BYTES + 1);
        return request(lastBlock, body);
      }
      case TYPE.request:
        return body.length !== REQUEST_BYTES || lastBlock === null ? "a request for pages" : request(lastBlock, body);
      case TYPE.resumeAck:
        return body.length === 4 && body.readUInt32BE(0) === RESUME_ACK_VALUE
          ? { kind: "resumed" }
          : "the answer to a recovery";
      case TYPE.switchoverAck:
        return body.length === 0 ? { kind: "switchover-ack" } : "a switchover acknowledgement";
      case TYPE.bitmap: {
        const nameBytes = body.length > 0 ? body[0]! : 0;
        if (nameBytes === 0 || body.length < 1 + nameBytes + BITMAP_SIZE_BYTES) return "a bitmap";
        const size = body.readBigUInt64BE(1 + nameBytes);
        if (size > BITMAP_BYTES_MAX) return "a bitmap that is too long";
        const bytes = Buffer.alloc(Number(size) + BITMAP_END_BYTES);
        bitmap = { block: body.toString("utf8", 1, 1 + nameBytes), bytes, filled: 0 };
        return null;
      }
      default:
        return "a message of a kind that was not asked for";
    }
  };
  const request = (block: string, body: Buffer): ReturnMessage | string => {
    const offset = body.readBigUInt64BE(0);
    if (offset > Number.MAX_SAFE_INTEGER) return "a request for pages beyond all blocks";
    return { kind: "request", block, offset: Number(offset), length: body.readUInt32BE(8) };
  };

  const push: ReturnPathReader["push"] = (chunk) => {
    const messages: ReturnMessage[] = [];
    if (malformed !== null) return { messages, malformed };
    const bytes = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    let at = 0;
    while (malformed === null) {
      if (bitmap !== null) {
        at += fill(bitmap, bytes.subarray(at));
        if (bitmap.filled < bitmap.bytes.length) break;
        const bits = bitmap.bytes.subarray(0, -BITMAP_END_BYTES);
        if (bitmap.bytes.readBigUInt64BE(bits.length) === BITMAP_END)
          messages.push({ kind: "received", block: bitmap.block, bits });
        else malformed = "a bitmap without its end";
        bitmap = null;
        continue;
      }
      if (bytes.length - at < HEAD_BYTES) break;
      const type = bytes.readUInt16BE(at);
      const length = bytes.readUInt16BE(at + 2);
      const end = at + HEAD_BYTES + length + (type === TYPE.bitmap ? BITMAP_SIZE_BYTES : 0);
      if (length <= MESSAGE_BYTES_MAX && end > bytes.length) break;
      const message =
        length > MESSAGE_BYTES_MAX ? "a message that is too long" : read(type, bytes.subarray(at + HEAD_BYTES, end));
      if (typeof message === "string") malformed = `${message}: type ${type}, ${length} bytes`;
      else if (message !== null) messages.push(message);
      at = end;
    }
    rest = bytes.subarray(at);
    return { messages, malformed };
  };
  return { push };
};

/** Takes what of a bitmap is there; returns how many bytes that were. */
const fill = (bitmap: { readonly bytes: Buffer; filled: number }, bytes: Buffer): number => {
  const count = bytes.copy(bitmap.bytes, bitmap.filled);
  bitmap.filled += count;
  return count;
};
