/**
 * One client of the simulated device's process: cuts what comes into frames, and has them carried out one by one, in order.
 *
 *     data -> frames waiting -> carried out, one at a time for the whole device -> replies
 *
 * A client that reads no replies gets no more work done; one that sends more than it may is not read for a while; one that sends what is
 * no frame is cut off, since nobody knows where its next one begins.
 */
import type { Socket } from "node:net";
import { decodeHeader, FRAME_BYTES_MAX, HEADER_BYTES } from "../vfio-user/header.ts";

/** Requests that wait, bytes: two of the longest frames, so that one can come while another is carried out. */
const WAITING_BYTES_MAX = 2 * FRAME_BYTES_MAX;
/** Replies that wait, bytes: beyond it a client does not read, and nothing more is carried out for it. */
const REPLY_BYTES_MAX = 2 * FRAME_BYTES_MAX;

/** What the connection is about. */
export interface FrameHandler {
  /** A whole frame. False: not now; it is offered again when `work` is called. */
  readonly carryOut: (frame: Uint8Array) => boolean;
  /** The client has gone, or was cut off for this reason. */
  readonly closed: (reason: string | null) => void;
}

export interface Connection {
  /** `data` are the frame's last bytes, when they stand elsewhere; they must stay as they are. */
  readonly send: (frame: Uint8Array, data?: Uint8Array) => void;
  /** Sends what was sent, then ends. */
  readonly end: () => void;
  /** Ends at once. */
  readonly cut: (reason: string) => void;
  /** Goes on with what waits. */
  readonly work: () => void;
}

/** Takes over a socket; `handle` is given the connection before anything comes. */
export const makeConnection = (socket: Socket, handle: (connection: Connection) => FrameHandler): void => {
  let chunks: Array<Uint8Array> = [];
  let waitingBytes = 0;
  let ended = false;
  let working = false;

  const cut = (reason: string | null): void => {
    if (ended) return;
    ended = true;
    chunks = [];
    socket.destroy();
    handler.closed(reason);
  };
  /** The first `bytes` bytes that wait, as one piece. */
  const front = (bytes: number): Uint8Array => {
    if (chunks.length > 1 && chunks[0]!.length < bytes) chunks = [Buffer.concat(chunks)];
    return chunks[0]!.subarray(0, bytes);
  };
  const takeAway = (bytes: number): void => {
    const [first, ...others] = chunks;
    chunks = first!.length === bytes ? others : [first!.subarray(bytes), ...others];
    waitingBytes -= bytes;
  };
  /** Whether there was a frame that could be carried out. */
  const workOnce = (): boolean => {
    if (ended || waitingBytes < HEADER_BYTES || socket.writableLength > REPLY_BYTES_MAX) return false;
    const header = decodeHeader(front(HEADER_BYTES));
    if ("kind" in header) {
      cut(header.reason);
      return false;
    }
    if (waitingBytes < header.frameBytes || !handler.carryOut(front(header.frameBytes))) return false;
    if (!ended) takeAway(header.frameBytes);
    return true;
  };
  const work = (): void => {
    // What is carried out may end at once, and call this again.
    if (working) return;
    working = true;
    while (workOnce());
    working = false;
    if (waitingBytes <= WAITING_BYTES_MAX) socket.resume();
  };

  const connection: Connection = {
    send: (frame, data) => {
      if (ended) return;
      if (data !== undefined) socket.cork();
      socket.write(frame);
      if (data === undefined) return;
      socket.write(data);
      socket.uncork();
    },
    end: () => {
      if (ended) return;
      ended = true;
      socket.end();
      handler.closed(null);
    },
    cut,
    work,
  };
  const handler = handle(connection);
  socket.on("data", (chunk: Buffer) => {
    if (ended) return;
    chunks.push(chunk);
    waitingBytes += chunk.length;
    if (waitingBytes > WAITING_BYTES_MAX) socket.pause();
    work();
  });
  socket.on("drain", work);
  // Without a listener an error event would end the process; "close" follows it.
  socket.on("error", () => undefined);
  socket.on("close", () => cut(null));
};
