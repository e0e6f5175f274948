/**
 * What a QEMU that takes a migration says to the source of it: the return path (docs/devel/migration/main.rst, migration/savevm.c of
 * QEMU 10.0). All numbers are big-endian.
 *
 *     u16 type   u16 n   n bytes
 *     1 SHUT               u32 0 or an error
 *     2 PONG               u32 the number of the ping
 *     3 REQ_PAGES_ID       u64 offset   u32 length   u8 n, name of the RAMBlock
 *     4 REQ_PAGES          u64 offset   u32 length               of the RAMBlock of the request before
 *     6 RESUME_ACK         u32 1
 *     7 SWITCHOVER_ACK
 */

export type ReturnMessage =
  /** Nothing follows. `error`: 0, or QEMU has failed. */
  | { readonly kind: "shut"; readonly error: number }
  | { readonly kind: "pong"; readonly ping: number }
  /** Bytes of a block that somebody waits for, or several do. */
  | { readonly kind: "request"; readonly block: string; readonly offset: number; readonly length: number }
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

const TYPE = { shut: 1, pong: 2, requestOfBlock: 3, request: 4, resumeAck: 6, switchoverAck: 7 } as const;
const HEAD_BYTES = 4;
/** No message is longer, bytes; QEMU reads them so, too. */
const MESSAGE_BYTES_MAX = 512;
const REQUEST_BYTES = 12;
const RESUME_ACK_VALUE = 1;

export const makeReturnPathReader = (): ReturnPathReader => {
  /** The beginning of a message whose rest has not come. */
  let rest: Buffer = Buffer.alloc(0);
  let lastBlock: string | null = null;
  let malformed: string | null = null;

  const read = (type: number, body: Buffer): ReturnMessage | string => {
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
    while (bytes.length - at >= HEAD_BYTES) {
      const type = bytes.readUInt16BE(at);
      const length = bytes.readUInt16BE(at + 2);
      const end = at + HEAD_BYTES + length;
      if (length <= MESSAGE_BYTES_MAX && end > bytes.length) break;
      const message =
        length > MESSAGE_BYTES_MAX ? "a message that is too long" : read(type, bytes.subarray(at + HEAD_BYTES, end));
      if (typeof message === "string") {
        malformed = `${message}: type ${type}, ${length} bytes`;
        return { messages, malformed };
      }
      messages.push(message);
      at = end;
    }
    rest = bytes.subarray(at);
    return { messages, malformed };
  };
  return { push };
};
