/**
 * Cuts the bytes of a socket into frames, however the socket cut them. Memory is bounded by one frame: the header says how long it is
 * before anything but a header was kept.
 */
import { decodeHeader, HEADER_BYTES, type Header, type Malformed } from "./header.ts";

export interface FrameReader {
  /**
   * Hands over each frame that `chunk` completes, in order. A frame that lies in one chunk is a view of it, else it is in memory of the
   * reader's, which the next one takes: who wants to keep it copies it. A reason: this was no frame, and nothing behind it can be found any more.
   */
  readonly push: (chunk: Uint8Array, take: (header: Header, frame: Uint8Array) => void) => Malformed | null;
  /** Whether a frame has begun and not ended: a stream that ends here was cut. */
  readonly isInsideFrame: () => boolean;
}

export const makeFrameReader = (): FrameReader => {
  /** The header, as far as it is here; full while `begun` is not null. */
  const head = new Uint8Array(HEADER_BYTES);
  let headBytes = 0;
  /** For frames that come in several chunks, as long as the longest so far: a new one for each is what keeps the garbage collector busy. */
  let room = new Uint8Array(0);
  /** A frame that goes on in a later chunk; null while not even its header is complete. */
  let begun: { readonly header: Header; readonly frame: Uint8Array; filled: number } | null = null;

  const push: FrameReader["push"] = (chunk, take) => {
    let at = 0;
    while (at < chunk.length) {
      if (begun === null) {
        const part = chunk.subarray(at, at + HEADER_BYTES - headBytes);
        head.set(part, headBytes);
        headBytes += part.length;
        at += part.length;
        if (headBytes < HEADER_BYTES) return null;
        const header = decodeHeader(head);
        if ("kind" in header) return header;
        // Below 0 the header began in an earlier chunk.
        const start = at - HEADER_BYTES;
        if (start >= 0 && start + header.frameBytes <= chunk.length) {
          headBytes = 0;
          at = start + header.frameBytes;
          take(header, chunk.subarray(start, at));
          continue;
        }
        if (room.length < header.frameBytes) room = new Uint8Array(header.frameBytes);
        begun = { header, frame: room.subarray(0, header.frameBytes), filled: HEADER_BYTES };
        begun.frame.set(head);
      }
      const part = chunk.subarray(at, at + begun.frame.length - begun.filled);
      begun.frame.set(part, begun.filled);
      begun.filled += part.length;
      at += part.length;
      if (begun.filled < begun.frame.length) return null;
      const { header, frame } = begun;
      begun = null;
      headBytes = 0;
      take(header, frame);
    }
    return null;
  };
  return { push, isInsideFrame: () => headBytes > 0 };
};
