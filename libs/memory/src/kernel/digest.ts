import { crc32 } from "node:zlib";

/**
 * CRC-32 of a part of `bytes`, going on from the digest `previous` of what came before it (0 to begin with): the digest of a
 * block does not depend on the pieces it was read in. It finds errors; it is no proof against somebody who forges.
 */
export const digestRange = (bytes: Uint8Array, offset: number, lengthBytes: number, previous = 0): number =>
  crc32(bytes.subarray(offset, offset + lengthBytes), previous);
