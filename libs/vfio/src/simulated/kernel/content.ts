/**
 * What device memory holds, without holding it: a block's bytes follow from the seed, its number, and its generation, which counts
 * how often it changed. They are a window into one pattern of random bytes:
 *
 *     pattern  |......[ block 7, generation 2 ].......[ block 3, generation 0 ].....|
 *
 * So 300 MB of device memory are 16 MiB of pattern and a table of generations, a read is one copy, and a write one comparison.
 */
import { createCipheriv } from "node:crypto";

/** Blocks of a large device, bytes: a record's head is then nothing beside its data. */
const BLOCK_BYTES_MAX = 65_536;
/** Blocks of a small one, bytes. */
const BLOCK_BYTES_MIN = 256;
/** Blocks that a device has at least, if its size allows: so that a little change makes only a little dirty. */
const BLOCKS_WANTED = 256;
/** Windows of one packet, 1 MiB, should seldom overlap: a compressor would find that. */
const PATTERN_BYTES_MAX = 16 * 2 ** 20;
/** Of small devices, which are started by the hundred. */
const PATTERN_BYTES_MIN = 2 ** 20;

export interface Content {
  readonly blockBytes: number;
  readonly blockCount: number;
  readonly stateBytes: number;
  /** The bytes of a block: a view, for reading. The last block may be shorter than the others. */
  readonly block: (block: number, generation: number) => Buffer;
}

/** The block size of a device of this size, bytes: a power of two. */
export const blockBytesOf = (stateBytes: number): number => {
  let bytes = BLOCK_BYTES_MIN;
  while (bytes < BLOCK_BYTES_MAX && bytes * BLOCKS_WANTED < stateBytes) bytes *= 2;
  return bytes;
};

export const makeContent = (seed: number, stateBytes: number): Content => {
  const blockBytes = blockBytesOf(stateBytes);
  const blockCount = Math.ceil(stateBytes / blockBytes);
  const pattern = makePattern(seed, stateBytes >= PATTERN_BYTES_MAX ? PATTERN_BYTES_MAX : PATTERN_BYTES_MIN);
  const windows = pattern.length - blockBytes;
  return {
    blockBytes,
    blockCount,
    stateBytes,
    block: (block, generation) => {
      const start = scatter(seed, block, generation) % windows;
      return pattern.subarray(start, start + Math.min(blockBytes, stateBytes - block * blockBytes));
    },
  };
};

/** Random bytes that follow from the seed: a key stream, which is the cheapest in Node.js. */
export const makePattern = (seed: number, bytes: number): Buffer => {
  const key = Buffer.alloc(16);
  key.writeUInt32LE(seed);
  return createCipheriv("aes-128-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(bytes));
};

/** An unsigned 32-bit number that looks random (the finalizer of MurmurHash3 over a sum of odd multiples). */
export const scatter = (seed: number, index: number, generation: number): number => {
  let hash = (Math.imul(seed, 0x9e3779b1) + Math.imul(index, 0x85ebca77) + Math.imul(generation, 0xc2b2ae3d)) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
};
