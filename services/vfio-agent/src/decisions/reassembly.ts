/**
 * Slices of one stream that came before their turn (R4): put in order, each byte once, in a queue bounded in count and bytes. What does
 * not fit is dropped, and comes again: it was not acknowledged.
 *
 * Mutable on purpose, and owned by one state.
 */

export interface Piece {
  readonly item: number;
  readonly offset: number;
  readonly payload: Uint8Array;
}

export interface Reassembly {
  /** `x-migration-max-queued-buffers`, `x-migration-max-queued-bytes`. */
  readonly buffersMax: number;
  readonly bytesMax: number;
  /** Bytes taken in order so far: those that were written, and those that are just being written. */
  next: number;
  /** Bytes that the device has taken. */
  written: number;
  readonly queue: Map<number, Piece>;
  queuedBytes: number;
  /** The most that ever waited, bytes. */
  queuedBytesPeak: number;
  dropped: number;
}

export const make = (buffersMax: number, bytesMax: number): Reassembly => ({
  buffersMax,
  bytesMax,
  next: 0,
  written: 0,
  queue: new Map(),
  queuedBytes: 0,
  queuedBytesPeak: 0,
  dropped: 0,
});

/** `written` long ago: its acknowledgement was lost. `waiting`: a copy is in the queue, or is being written. `full`, `torn`: dropped; a torn one does not begin where a slice may. */
export type Verdict = "queued" | "written" | "waiting" | "full" | "torn";

/** Queues a piece, if it is new and there is room. The piece's payload must be the queue's own. */
export const offer = (stream: Reassembly, piece: Piece): Verdict => {
  const { offset, payload } = piece;
  if (offset + payload.length <= stream.written) return "written";
  if (offset + payload.length <= stream.next) return "waiting";
  if (offset < stream.next) return "torn";
  if (stream.queue.has(offset)) return "waiting";
  // What everything waits for is taken whatever waits: without it nothing would ever move.
  const isNext = offset === stream.next;
  if (!isNext && (stream.queue.size >= stream.buffersMax || stream.queuedBytes + payload.length > stream.bytesMax)) {
    stream.dropped++;
    return "full";
  }
  stream.queue.set(offset, piece);
  stream.queuedBytes += payload.length;
  stream.queuedBytesPeak = Math.max(stream.queuedBytesPeak, stream.queuedBytes);
  return "queued";
};

/** Takes what follows without a gap, in order, at most about `bytesMax` bytes, but at least one piece if there is one. */
export const take = (stream: Reassembly, bytesMax: number): Piece[] => {
  const pieces: Piece[] = [];
  for (
    let bytes = 0, piece = stream.queue.get(stream.next);
    piece !== undefined;
    piece = stream.queue.get(stream.next)
  ) {
    if (pieces.length > 0 && bytes + piece.payload.length > bytesMax) break;
    stream.queue.delete(piece.offset);
    stream.queuedBytes -= piece.payload.length;
    stream.next += piece.payload.length;
    bytes += piece.payload.length;
    pieces.push(piece);
  }
  return pieces;
};
