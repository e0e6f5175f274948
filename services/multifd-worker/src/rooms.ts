/** Memory in which packets are packed and stay until a connection has taken them. */
import { LANE_LENGTH_BYTES } from "@godwit/protocol";
import { ROOM_BYTES } from "./sealing.ts";

/** Rooms kept while nobody needs them: what a migration may have unacknowledged, 32 MiB in packets of 256 KiB, and a turn's more. */
const SPARE_ROOMS_MAX = 136;
/** A packet much shorter than a room moves to memory of its own, so that 8,192 of a page each do not hold as many rooms. */
const COPIED_BYTES_MAX = 32 * 1024;

export interface Packed {
  /** The packet; before it in its memory there are LANE_LENGTH_BYTES for the length of a frame. */
  readonly bytes: Uint8Array;
  /** Its bytes are nobody's any more; to be called once. */
  readonly done: () => void;
}

export interface Rooms {
  /** What `pack` packs into the room that it is given, ROOM_BYTES long. Throws what it throws. */
  readonly pack: (pack: (room: Uint8Array) => Uint8Array) => Packed;
}

/** Each is made when it is needed first: as many are in use as the producers of items let be on their way. */
export const makeRooms = (spareMax = SPARE_ROOMS_MAX): Rooms => {
  const spare: Uint8Array[] = [];
  const giveBack = (room: Uint8Array): void => {
    if (spare.length < spareMax) spare.push(room);
  };
  return {
    pack: (pack) => {
      const room = spare.pop() ?? framed(ROOM_BYTES);
      let isKept = false;
      try {
        const packet = pack(room);
        isKept = packet.length > COPIED_BYTES_MAX;
        if (isKept) return { bytes: packet, done: () => giveBack(room) };
        const bytes = framed(packet.length);
        bytes.set(packet);
        return { bytes, done: () => undefined };
      } finally {
        if (!isKept) giveBack(room);
      }
    },
  };
};

const framed = (bytes: number): Uint8Array => new Uint8Array(LANE_LENGTH_BYTES + bytes).subarray(LANE_LENGTH_BYTES);
