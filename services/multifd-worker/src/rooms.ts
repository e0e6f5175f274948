/** Memory in which packets are packed and stay until a connection has taken them. */
import { LANE_LENGTH_BYTES } from "@godwit/protocol";
import { ROOM_BYTES } from "./sealing.ts";

/** What a migration may have unacknowledged, 32 MiB in packets of 256 KiB, and a turn's more. When all are in use, packets go by NATS. */
export const ROOMS_MAX = 136;

export interface Room {
  /** ROOM_BYTES long, with room for the length of a frame before it. */
  readonly bytes: Uint8Array;
}

export interface Rooms {
  /** Null: all are in use. */
  readonly take: () => Room | null;
  /** Its bytes are nobody's any more. */
  readonly giveBack: (room: Room) => void;
}

/** Each is made when it is needed first. */
export const makeRooms = (max = ROOMS_MAX): Rooms => {
  const free: Room[] = [];
  let made = 0;
  return {
    take: () => {
      const room = free.pop();
      if (room !== undefined || made >= max) return room ?? null;
      made++;
      return { bytes: new Uint8Array(LANE_LENGTH_BYTES + ROOM_BYTES).subarray(LANE_LENGTH_BYTES) };
    },
    giveBack: (room) => void free.push(room),
  };
};
