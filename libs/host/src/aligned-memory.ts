import koffi from "koffi";

/**
 * Memory that begins at a multiple of `alignment` (a power of two), as O_DIRECT wants it. Its bytes never move: they lie outside the
 * heap of JavaScript.
 */
export const alignedMemory = (lengthBytes: number, alignment: number): Uint8Array => {
  const memory = new Uint8Array(lengthBytes + alignment);
  const address = BigInt(koffi.address(memory));
  const skip = Number((BigInt(alignment) - (address % BigInt(alignment))) % BigInt(alignment));
  return memory.subarray(skip, skip + lengthBytes);
};
