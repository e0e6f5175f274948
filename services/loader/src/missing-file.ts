/**
 * Which pages of a guest in postcopy have not come yet, in a file that outlives its loader: the bitmaps of all RAMBlocks, one behind the
 * other, mapped, and behind them those of the pages that were missing at the beginning. A page's bit is cleared once the page is in place
 * (or, with some guests, on its way there: `MissingMemory.notPlaced`), so at whatever instant the loader dies no bit says that a page is
 * there which is not; one that says too little costs asking again, since the kernel places no page over another.
 */
import { closeSync, fstatSync, openSync } from "node:fs";
import { allocateFile, mapFile } from "@godwit/host";
import { Bitmap } from "@godwit/memory";

export interface MissingFile {
  /** Shared with the file. */
  readonly bitmaps: ReadonlyArray<Bitmap.Bitmap>;
  /** As they were at the beginning. */
  readonly atFirst: ReadonlyArray<Bitmap.Bitmap>;
  /** Leaves the file; the bitmaps must not be used any more. */
  readonly close: () => void;
}

const bytesOf = (pagesOfBlocks: ReadonlyArray<number>): number =>
  2 * pagesOfBlocks.reduce((sum, pages) => sum + Bitmap.wordCount(pages), 0) * Uint32Array.BYTES_PER_ELEMENT;

/** Before the guest may run. Throws what the file system throws. */
export const createMissingFile = (path: string, bitmaps: ReadonlyArray<Bitmap.Bitmap>): MissingFile => {
  const pagesOfBlocks = bitmaps.map(({ pageCount }) => pageCount);
  const fd = openSync(path, "w+", 0o600);
  try {
    // All of it now: it is written through a mapping, where a full file system is a SIGBUS.
    allocateFile(fd, bytesOf(pagesOfBlocks), path);
    const file = mapBitmaps(fd, pagesOfBlocks);
    bitmaps.forEach(({ words }, block) => {
      file.bitmaps[block]!.words.set(words);
      file.atFirst[block]!.words.set(words);
    });
    return file;
  } finally {
    closeSync(fd);
  }
};

/** What a former life has left; null when it left nothing, or not of this guest. A host page of which a part is missing is missing. */
export const reopenMissingFile = (
  path: string,
  blocks: ReadonlyArray<{ readonly pages: number; readonly hostPages: number }>,
): MissingFile | null => {
  const pagesOfBlocks = blocks.map(({ pages }) => pages);
  let fd: number;
  try {
    fd = openSync(path, "r+");
  } catch {
    return null;
  }
  try {
    if (fstatSync(fd).size !== bytesOf(pagesOfBlocks)) return null;
    const file = mapBitmaps(fd, pagesOfBlocks);
    file.bitmaps.forEach((bitmap, block) => {
      Bitmap.widen(bitmap, blocks[block]!.hostPages);
    });
    return file;
  } finally {
    closeSync(fd);
  }
};

const mapBitmaps = (fd: number, pagesOfBlocks: ReadonlyArray<number>): MissingFile => {
  const lengthBytes = bytesOf(pagesOfBlocks);
  const mapping = mapFile(fd, { offsetBytes: 0, lengthBytes }, "writable");
  const all = new Uint32Array(
    mapping.bytes.buffer,
    mapping.bytes.byteOffset,
    lengthBytes / Uint32Array.BYTES_PER_ELEMENT,
  );
  let at = 0;
  const bitmapOf = (pageCount: number): Bitmap.Bitmap => {
    const words = all.subarray(at, at + Bitmap.wordCount(pageCount));
    at += words.length;
    return { words, pageCount };
  };
  return { bitmaps: pagesOfBlocks.map(bitmapOf), atFirst: pagesOfBlocks.map(bitmapOf), close: mapping.unmap };
};
