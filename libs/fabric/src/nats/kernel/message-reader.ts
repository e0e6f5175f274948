/**
 * Cuts the bytes of a NATS connection into pieces for the client's parser, so that a long message is never spread over several: it is
 * read straight into memory of its own, behind whose end there is room for the line of the next, so that one read brings both.
 *
 *     memory of a message:   [ MSG a 1 262144 .....payload..... CRLF | MSG a 1 262144 ..pa ]
 *
 * Lines and short messages are read into one buffer, and given out as copies.
 *
 * Why: the client's parser puts a message that is spread over chunks together in a buffer that grows by doubling: 700 KiB are
 * allocated for 256, and the chunks wait for the garbage collector besides. Memory outside the heap is what makes V8 collect:
 * at 100 MiB/s that was half of a loader's and of a worker's processor time.
 *
 * The pieces in a row are the bytes in a row, whatever they are: what is no NATS protocol passes through, and the parser complains.
 */
import type { ByteSink } from "../../kernel/byte-sink.ts";

/** What is read at once while no long message is coming, bytes. A longer line is no NATS protocol: the server limits a message's to 4 KiB, and INFO of a large cluster has a few. */
const SHORT_BYTES_MAX = 65_536;
/** Room behind a long message for what comes next, bytes: the longest line of a message that a server sends. */
const NEXT_BYTES = 4096;
/** The client refuses longer messages, too, and the server cannot be set to send them. */
const MESSAGE_BYTES_MAX = 64 * 1024 ** 2;
const LINE_END = "\n".charCodeAt(0);
const CARRIAGE_RETURN = "\r".charCodeAt(0);
const SPACE = " ".charCodeAt(0);
const CRLF_BYTES = 2;

export interface MessageReaderOptions {
  readonly give: (piece: Uint8Array) => void;
  /** Memory of at least that length for a long message; it belongs to the message. Not cleared. */
  readonly allocate: (bytes: number) => Uint8Array;
}

export const makeMessageReader = ({ give, allocate }: MessageReaderOptions): ByteSink => {
  /** What has come of lines and short messages, from the front. */
  const short = Buffer.allocUnsafeSlow(SHORT_BYTES_MAX);
  let held = 0;
  /** After a long message another one is likely, whose payload should not come by way of here. */
  let shortRoom = SHORT_BYTES_MAX;
  /** A long message that has begun, with NEXT_BYTES behind it, and how much is here; or none. */
  let message: Uint8Array | null = null;
  let messageBytes = 0;
  let here = 0;
  let isProtocol = true;

  /** Goes through the lines and messages that are held, gives out those that are whole, and begins a message that is long. */
  const cut = (): void => {
    let at = 0;
    while (isProtocol && at < held) {
      const lineEnd = short.subarray(0, held).indexOf(LINE_END, at);
      if (lineEnd === -1) {
        isProtocol = held - at < SHORT_BYTES_MAX;
        break;
      }
      const bytes = lineEnd + 1 - at + bodyBytes(short, at, lineEnd);
      if (bytes > SHORT_BYTES_MAX) {
        begin(bytes);
        break;
      }
      if (at + bytes > held) break;
      at += bytes;
    }
    if (!isProtocol) at = held;
    if (at > 0) give(copyOf(short.subarray(0, at)));
    if (message !== null) {
      message.set(short.subarray(at, held));
      here = held - at;
      held = 0;
    } else {
      short.copyWithin(0, at, held);
      held -= at;
    }
  };
  const begin = (bytes: number): void => {
    messageBytes = bytes;
    message = allocate(bytes + NEXT_BYTES).subarray(0, bytes + NEXT_BYTES);
  };
  return {
    room: () =>
      message === null ? short.subarray(held, Math.max(held + NEXT_BYTES, shortRoom)) : message.subarray(here),
    filled: (bytes) => {
      if (message === null) {
        held += bytes;
        shortRoom = SHORT_BYTES_MAX;
      } else {
        here += bytes;
        if (here < messageBytes) return true;
        // Out of the message's memory, which is somebody else's in a moment.
        short.set(message.subarray(messageBytes, here));
        held = here - messageBytes;
        shortRoom = NEXT_BYTES;
        const whole = message.subarray(0, messageBytes);
        message = null;
        give(whole);
      }
      cut();
      return true;
    },
  };
};

const copyOf = (bytes: Uint8Array): Uint8Array => {
  const copy = new Uint8Array(bytes.length);
  copy.set(bytes);
  return copy;
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
