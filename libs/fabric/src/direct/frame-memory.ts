/** Memory for frames that arrive: large ones use some rooms over and over, which whoever takes a packet gives back by `letGo`. */
import { LANE_FRAME_BYTES_MAX, LANE_LENGTH_BYTES } from "@godwit/protocol";
import { allocateOwned, lendMemory } from "../own-memory.ts";

/** Room for any frame and the length of the next. */
const ROOM_BYTES = LANE_FRAME_BYTES_MAX + LANE_LENGTH_BYTES;
/** A smaller frame gets as much as it needs: 8,192 packets of one page can be on their way, and would take 2 GiB in rooms. */
const ROOM_WORTH_BYTES = 64 * 1024;
/** Rooms kept while nobody needs them: what a migration may have on its way, 32 MiB. */
const SPARE_ROOMS_MAX = 128;

/** One allocator for all connections of a process. */
export const makeFrameMemory = (): ((bytes: number) => Uint8Array) => {
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
