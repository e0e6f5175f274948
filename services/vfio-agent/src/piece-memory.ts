/** Slices between their arrival and the device: in the memory of their messages, so that nothing is copied but on the way into the device. */
import { crc32 } from "node:zlib";
import { letGo } from "@godwit/fabric";
import { joinCrc32, type SlicePacket, slicePayloadCrc32 } from "@godwit/protocol";

/** Checksums of payloads that wait, so that the stream's follows without another look at its bytes. */
const checksums = new WeakMap<Uint8Array, number>();

/**
 * The payload of a slice, unpacked, for the queue; `message` is the packet that was found whole. One that would keep much more alive than
 * it is long gets memory of its own: what waits is counted by its length.
 */
export const forQueue = (message: Uint8Array, packet: SlicePacket, unpacked: Uint8Array): Uint8Array => {
  const isOwn = packet.compression === "none";
  const payload = unpacked.length * 2 < unpacked.buffer.byteLength ? unpacked.slice() : unpacked;
  checksums.set(payload, isOwn ? slicePayloadCrc32(message) : crc32(payload));
  if (payload.buffer !== message.buffer) letGo(message);
  return payload;
};

export interface Joined {
  /** Gone with the next call. */
  readonly bytes: Uint8Array;
  /** crc32 of the stream up to here. */
  readonly digest: number;
}

/**
 * Moves pieces behind each other into a room that is used over and over, and lets go of their memory: their payloads are empty from then
 * on. `before` is the digest of the stream so far.
 */
export const makeJoiner = (): ((before: number, pieces: ReadonlyArray<{ readonly payload: Uint8Array }>) => Joined) => {
  let room = new Uint8Array(0);
  return (before, pieces) => {
    const total = pieces.reduce((sum, { payload }) => sum + payload.length, 0);
    if (room.length < total) room = new Uint8Array(total);
    let at = 0;
    let digest = before;
    for (const { payload } of pieces) {
      room.set(payload, at);
      at += payload.length;
      digest = joinCrc32(digest, checksums.get(payload) ?? crc32(payload), payload.length);
      letGo(payload);
    }
    return { bytes: room.subarray(0, total), digest };
  };
};
