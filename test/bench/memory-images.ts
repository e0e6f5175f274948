/** What the memory of a QEMU is filled with, through the file that it maps. */
import { randomFillSync } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { fillPage, PAGE_BYTES, PAGE_WORDS, recipeOf } from "../../libs/guest/src/builtin/kernel/page.ts";

const MIB = 1024 ** 2;

/** Random numbers, again after each MiB. */
export const fillRandomly = (path: string, fromByte: number, toByte: number): void =>
  fillWith(path, fromByte, toByte, randomFillSync(Buffer.alloc(MIB)));

/** Pages that zstd makes a third of, as those of a builtin guest; again after each MiB, which no packet holds two of. */
export const fillCompressibly = (path: string, fromByte: number, toByte: number): void => {
  const words = new Int32Array(MIB / Int32Array.BYTES_PER_ELEMENT);
  const recipe = recipeOf(1, { zero: 0, compressible: 100, random: 0 });
  for (let page = 0; page < MIB / PAGE_BYTES; page++) fillPage(recipe, words, page * PAGE_WORDS, page, 1);
  fillWith(path, fromByte, toByte, Buffer.from(words.buffer));
};

const fillWith = (path: string, fromByte: number, toByte: number, chunk: Buffer): void => {
  const fd = openSync(path, "r+");
  try {
    for (let at = fromByte; at < toByte; at += MIB) writeSync(fd, chunk, 0, MIB, at);
  } finally {
    closeSync(fd);
  }
};
