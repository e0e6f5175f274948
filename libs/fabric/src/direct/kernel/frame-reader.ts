/**
 * Puts the bytes of a direct connection together to frames, where each byte is read straight to its place: behind the end of one frame's
 * memory there is room for the length of the next, so that one read brings both.
 *
 *     memory of a frame:   [ packet .......................... | u32 length of the next ]
 *
 * The bytes are a stranger's: nothing is read or written outside the memory that was asked for, and a length that no packet has ends it.
 */
import { LANE_LENGTH_BYTES } from "@godwit/protocol";
import type { ByteSink } from "../../kernel/byte-sink.ts";

export interface FrameReaderOptions {
  /** Longer ones are refused before anything is allocated for them. */
  readonly frameBytesMax: number;
  /** Memory of at least that length; it belongs to the frame. Not cleared. */
  readonly allocate: (bytes: number) => Uint8Array;
  /** A whole frame. Its memory is the receiver's from now on. */
  readonly give: (frame: Uint8Array) => void;
}

export const makeFrameReader = ({ frameBytesMax, allocate, give }: FrameReaderOptions): ByteSink => {
  /** The length of the next frame, as far as it is here. */
  const length = new Uint8Array(LANE_LENGTH_BYTES);
  let lengthHere = 0;
  /** The frame that has begun; null while its length is not known. */
  let frame: Uint8Array | null = null;
  let frameBytes = 0;
  let here = 0;

  const begin = (): boolean => {
    const bytes = (length[0]! | (length[1]! << 8) | (length[2]! << 16) | (length[3]! << 24)) >>> 0;
    if (bytes === 0 || bytes > frameBytesMax) return false;
    frame = allocate(bytes + LANE_LENGTH_BYTES).subarray(0, bytes + LANE_LENGTH_BYTES);
    frameBytes = bytes;
    here = 0;
    lengthHere = 0;
    return true;
  };
  return {
    room: () => (frame === null ? length.subarray(lengthHere) : frame.subarray(here)),
    filled: (bytes) => {
      if (frame === null) lengthHere += bytes;
      else {
        here += bytes;
        if (here < frameBytes) return true;
        const whole = frame;
        // Out of the frame's memory, which is somebody else's in a moment.
        lengthHere = here - frameBytes;
        for (let i = 0; i < lengthHere; i++) length[i] = whole[frameBytes + i]!;
        frame = null;
        give(whole.subarray(0, frameBytes));
      }
      return lengthHere < LANE_LENGTH_BYTES || begin();
    },
  };
};
