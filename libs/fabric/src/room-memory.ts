/** Memory for what arrives: long packets use some rooms over and over, which whoever takes a packet gives back by `letGo`. */
import { LANE_FRAME_BYTES_MAX } from "@godwit/protocol";
import { allocateOwned, lendMemory } from "./own-memory.ts";

/** Room for any packet, with what either lane reads beside it: the lines of a message and of the next one. */
const ROOM_BYTES = LANE_FRAME_BYTES_MAX + 8192;
/** What would leave half of a room empty gets as much as it needs: 8,192 packets of one page can be on their way, and would take 2 GiB in rooms. */
const ROOM_WORTH_BYTES = ROOM_BYTES / 2;
/** Rooms kept while nobody needs them: what a migration may have on its way, 32 MiB. */
const SPARE_ROOMS_MAX = 128;

/** Allocates at least so many bytes. One allocator for all connections of a process that bring packets. */
export const makeRoomMemory = (): ((bytes: number) => Uint8Array) => {
  const spare: Buffer[] = [];
  return (bytes) => {
    if (bytes < ROOM_WORTH_BYTES || bytes > ROOM_BYTES) return allocateOwned(bytes);
    const room = spare.pop() ?? Buffer.allocUnsafeSlow(ROOM_BYTES);
    lendMemory(room, () => {
      if (spare.length < SPARE_ROOMS_MAX) spare.push(room);
    });
    return room;
  };
};
