import { randomFillSync } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";

const MIB = 1024 ** 2;

/** Writes into the memory of a QEMU that maps the file: random numbers, again after each MiB. */
export const fillRandomly = (path: string, fromByte: number, toByte: number): void => {
  const chunk = randomFillSync(Buffer.alloc(MIB));
  const fd = openSync(path, "r+");
  try {
    for (let at = fromByte; at < toByte; at += MIB) writeSync(fd, chunk, 0, MIB, at);
  } finally {
    closeSync(fd);
  }
};
