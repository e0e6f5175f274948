import { closeSync, openSync, readSync } from "node:fs";
import { digestRange } from "./kernel/digest.ts";

/** Read at once, bytes: fits a cache, and costs few system calls. */
const PIECE_BYTES = 1024 ** 2;

/** CRC-32 of a whole file. Throws what the file system throws. */
export const digestFile = (path: string): number => {
  const fd = openSync(path, "r");
  try {
    const piece = new Uint8Array(PIECE_BYTES);
    let digest = 0;
    for (let count = readSync(fd, piece); count > 0; count = readSync(fd, piece))
      digest = digestRange(piece, 0, count, digest);
    return digest;
  } finally {
    closeSync(fd);
  }
};
