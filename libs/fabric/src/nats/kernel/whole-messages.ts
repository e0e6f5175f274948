/**
 * Cuts the bytes of a NATS connection so that a long message is never spread over several pieces: it comes whole, in memory of
 * its own and of its own length. Everything else passes through as views.
 *
 *     chunks of a socket:    [.. PING MSG a 1 262144 | .....payload..... | .....load CRLF  MSG b 1 12 ........ CRLF  MS | G ..
 *     pieces that come out:  [.. PING]  [MSG a 1 262144 .....payload...........load CRLF]  [MSG b 1 12 ........ CRLF] [MSG ..
 *
 * Why: the client's parser puts a message that is spread over chunks together in a buffer that grows by doubling: 700 KiB are
 * allocated for 256, and the chunks wait for the garbage collector besides. Memory outside the heap is what makes V8 collect:
 * at 100 MiB/s that was half of a loader's and of a worker's processor time.
 *
 * The pieces in a row are the chunks in a row, whatever the bytes: what is no NATS protocol passes through, and the parser
 * complains.
 */

/** A longer line is no NATS protocol: the server limits a message's to 4 KiB, and INFO of a large cluster has a few. */
const LINE_BYTES_MAX = 65_536;
/** The client refuses longer messages, too, and the server cannot be set to send them. */
const MESSAGE_BYTES_MAX = 64 * 1024 ** 2;
const LINE_END = "\n".charCodeAt(0);
const CARRIAGE_RETURN = "\r".charCodeAt(0);
const SPACE = " ".charCodeAt(0);
const CRLF_BYTES = 2;

export interface WholeMessages {
  /** Takes the next chunk, and gives out what is complete now. The chunk's memory belongs to the cutter. */
  readonly push: (chunk: Buffer) => void;
}

export interface WholeMessagesOptions {
  readonly give: (piece: Uint8Array) => void;
  /** A chunk of which nothing was given out as a view. */
  readonly spare: (chunk: Buffer) => void;
  /** Memory for a long message, of that length exactly. */
  readonly allocate: (lengthBytes: number) => Buffer;
}

export const wholeMessages = ({ give, spare, allocate }: WholeMessagesOptions): WholeMessages => {
  /** A message that has begun, and how much of it is here; or none. */
  let message: Buffer | null = null;
  let here = 0;
  /** A line that has begun; empty when none has. */
  let line: Buffer = Buffer.alloc(0);
  let isProtocol = true;

  const push = (chunk: Buffer): void => {
    if (!isProtocol) return give(chunk);
    let at = 0;
    if (message !== null) {
      at = Math.min(chunk.length, message.length - here);
      chunk.copy(message, here, 0, at);
      here += at;
      if (here < message.length) return spare(chunk);
      give(message);
      message = null;
    }
    if (line.length > 0) {
      const joined = Buffer.concat([line, chunk.subarray(at)]);
      line = Buffer.alloc(0);
      spare(chunk);
      return cut(joined, 0);
    }
    cut(chunk, at);
  };

  /** Goes through the lines and messages from `from` on, where one begins. */
  const cut = (chunk: Buffer, from: number): void => {
    let at = from;
    while (at < chunk.length) {
      const lineEnd = chunk.indexOf(LINE_END, at);
      if (lineEnd === -1) {
        if (chunk.length - at > LINE_BYTES_MAX) {
          isProtocol = false;
          return give(chunk.subarray(from));
        }
        line = Buffer.from(chunk.subarray(at));
        break;
      }
      const end = lineEnd + 1 + bodyBytes(chunk, at, lineEnd);
      if (end > chunk.length) {
        message = allocate(end - at);
        here = chunk.copy(message, 0, at);
        break;
      }
      at = end;
    }
    if (at > from) give(chunk.subarray(from, at));
    else spare(chunk);
  };
  return { push };
};

/** Bytes behind the line [start, lineEnd] that belong to it: the payload of MSG and HMSG, whose length is the line's last word. */
const bodyBytes = (chunk: Buffer, start: number, lineEnd: number): number => {
  const first = chunk[start]! | 0x20;
  // M(SG) or H(MSG), in capitals or not; no other line of a server begins so.
  if (first !== 0x6d && first !== 0x68) return 0;
  const wordStart = chunk.lastIndexOf(SPACE, lineEnd) + 1;
  if (wordStart <= start) return 0;
  const wordEnd = chunk[lineEnd - 1] === CARRIAGE_RETURN ? lineEnd - 1 : lineEnd;
  let bytes = 0;
  for (let at = wordStart; at < wordEnd; at++) {
    const digit = chunk[at]! - 0x30;
    if (digit < 0 || digit > 9) return 0;
    bytes = bytes * 10 + digit;
  }
  return bytes > MESSAGE_BYTES_MAX ? 0 : bytes + CRLF_BYTES;
};
