/**
 * Writes a checkpoint beside its place and puts it there when it is whole. Pages are written by others, at the offsets that the
 * layout names, while this knows which there are. Until `finish` the file has no head: whatever ends the writer, what it leaves is no
 * checkpoint to any reader.
 */
import { closeSync, fsync, fsyncSync, ftruncateSync, openSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { tryLockFile, writeWhole } from "@godwit/host";
import * as Bitmap from "@godwit/memory/bitmap";
import { PAGE_BYTES } from "@godwit/protocol";
import { partialPath } from "./aside.ts";
import { type BlockSums, checksumPath, fingerprint, writeChecksums } from "./checksums.ts";
import { bitmapBytes } from "./format.ts";
import { type BlockSize, blockHeader, type Layout, layOut, ramTail } from "./layout.ts";

export interface WriterOptions {
  /** Where it shall be in the end. A file that is there is replaced, and not before the new one is on disk. */
  readonly path: string;
  /** Names this save among others of the same path. */
  readonly id: string;
  readonly machine: string;
  /** Bytes before the stream begins (`,offset=`): they stay a hole. */
  readonly start: number;
  /** The blocks whose pages are written while the guest runs. */
  readonly blocks: ReadonlyArray<BlockSize>;
  /** The number of RAM's section where it is known, as a file's devices have theirs. */
  readonly ramSection: number;
}

/** A block with what is stored of it. */
export interface BlockContent extends BlockSize {
  readonly present: Bitmap.Bitmap;
  /** Its pages, for a block that nobody has written yet: one after the other, those that are present. */
  readonly pages?: Uint8Array;
}

export interface Content {
  readonly ramSection: number;
  readonly blocks: ReadonlyArray<BlockContent>;
  /** The devices' sections, to the end of the stream. */
  readonly tail: Uint8Array;
  /** Checksums of every block's pages, to be kept beside the file. */
  readonly sums?: ReadonlyArray<BlockSums>;
}

export interface CheckpointWriter {
  /** Where pages go meanwhile. */
  readonly partialPath: string;
  readonly layout: Layout;
  /** Writes all but the pages that are there, syncs, and renames. `blocks` begins with those of the options. Returns the file's length, bytes. */
  readonly finish: (content: Content) => Promise<number>;
  /** Ends the writing; what is not finished is removed. */
  readonly close: () => void;
}

const sync = promisify(fsync);
/** Throws what the file system throws. */
export const openWriter = (options: WriterOptions): CheckpointWriter => {
  const partial = partialPath(options.path, options.id);
  const layout = layOut(options.machine, options.ramSection, options.blocks, options.start);
  const fd = openSync(partial, "wx+", 0o600);
  let isOpen = true;
  let isFinishing = false;
  const close = (): void => {
    if (!isOpen) return;
    isOpen = false;
    rmSync(partial, { force: true });
    // Who finishes is in the middle of a sync, and closes it himself: its number could be another file's by then.
    if (!isFinishing) closeSync(fd);
  };
  const requireOpen = (): void => {
    if (!isOpen) throw new Error("the checkpoint was given up");
  };
  try {
    // Whoever finds it locked knows that its writer lives.
    tryLockFile(fd);
    ftruncateSync(fd, layout.end);
  } catch (error) {
    close();
    throw error;
  }
  const finish: CheckpointWriter["finish"] = async (content) => {
    requireOpen();
    isFinishing = true;
    try {
      return await write(content);
    } finally {
      isFinishing = false;
      if (!isOpen) closeSync(fd);
    }
  };
  const write: CheckpointWriter["finish"] = async ({ ramSection, blocks, tail, sums }) => {
    const whole = layOut(options.machine, ramSection, blocks, options.start);
    const isSame = layout.blocks.every((place, index) => whole.blocks[index]?.pagesOffset === place.pagesOffset);
    if (!isSame) throw new Error("blocks have moved since their pages were written");
    const end = Buffer.concat([ramTail(ramSection), tail]);
    ftruncateSync(fd, whole.end + end.length);
    blocks.forEach(({ present, pages }, index) => {
      const place = whole.blocks[index]!;
      writeWhole(fd, blockHeader(place), place.headerOffset);
      writeWhole(fd, Bitmap.toBytes(present, bitmapBytes(place.lengthBytes / PAGE_BYTES)), place.bitmapOffset);
      if (pages !== undefined) writePages(fd, present, pages, place.pagesOffset);
    });
    writeWhole(fd, end, whole.end);
    // Not in this thread: a disk may take seconds for what a save has written.
    await sync(fd);
    requireOpen();
    // Last of all: with it the file is a checkpoint.
    writeWhole(fd, whole.head, options.start);
    await sync(fd);
    requireOpen();
    const bitmaps = blocks.map(({ present }) => present);
    const aside =
      sums === undefined
        ? null
        : writeChecksums(options.path, options.id, { fingerprint: fingerprint(bitmaps, tail), blocks: sums });
    try {
      renameSync(partial, options.path);
    } catch (error) {
      aside?.drop();
      throw error;
    }
    isOpen = false;
    if (aside === null) rmSync(checksumPath(options.path), { force: true });
    else aside.put();
    syncDirectory(dirname(options.path));
    return whole.end + end.length;
  };
  return { partialPath: partial, layout, finish, close };
};

const writePages = (fd: number, present: Bitmap.Bitmap, pages: Uint8Array, pagesOffset: number): void => {
  let from = 0;
  for (
    let run = Bitmap.nextRun(present, 0, present.pageCount);
    run !== null;
    run = Bitmap.nextRun(present, run.first + run.count, present.pageCount)
  ) {
    const bytes = pages.subarray(from, from + run.count * PAGE_BYTES);
    writeWhole(fd, bytes, pagesOffset + run.first * PAGE_BYTES);
    from += bytes.length;
  }
};

/** The rename itself shall survive a loss of power. */
export const syncDirectory = (directory: string): void => {
  const fd = openSync(directory, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
};
