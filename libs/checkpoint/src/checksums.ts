/**
 * Checksums of a checkpoint's pages, in a file beside it, so that the checkpoint itself stays one that QEMU reads:
 *
 *      0 "GWSUMS1\n"   8 u32 fingerprint   12 u32 blocks   then for each block { u8 n, name, u32 pages, u32 crc32 x pages }
 *        and u32 crc32 of all that
 *
 * Numbers are little-endian. The sum of a page that is not stored is 0. Two files cannot be renamed at once: the fingerprint says of
 * which save of that name the sums are.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { crc32 } from "node:zlib";
import { tryLockFile, writeWhole } from "@godwit/host";
import * as Bitmap from "@godwit/memory/bitmap";
import { BLOCK_BYTES_MAX, PAGE_BYTES } from "@godwit/protocol";
import { partialPath } from "./aside.ts";
import { MalformedCheckpoint } from "./malformed.ts";

export interface BlockSums {
  readonly name: string;
  readonly sums: Uint32Array;
}

const HEADER_BYTES = 16;
const MAGIC = Buffer.from("GWSUMS1\n", "latin1");
/** Four bytes a page and a few for each name. */
const FILE_BYTES_MAX = (BLOCK_BYTES_MAX / PAGE_BYTES) * 4;

export interface Checksums {
  /** Of the checkpoint that they belong to. */
  readonly fingerprint: number;
  readonly blocks: ReadonlyArray<BlockSums>;
}

/** Tells the saves of one name apart: which pages they have, and the state of their devices. */
export const fingerprint = (bitmaps: ReadonlyArray<Bitmap.Bitmap>, tail: Uint8Array): number =>
  bitmaps.reduce((sum, bitmap) => crc32(Bitmap.toBytes(bitmap, 0), sum), crc32(tail));

/** The same of a checkpoint that was read. */
export const fingerprintOf = (checkpoint: {
  readonly blocks: ReadonlyArray<{ readonly present: Bitmap.Bitmap }>;
  readonly tail: Uint8Array;
}): number =>
  fingerprint(
    checkpoint.blocks.map(({ present }) => present),
    checkpoint.tail,
  );

export const checksumPath = (path: string): string => `${path}.sums`;

export const encodeChecksums = ({ fingerprint, blocks }: Checksums): Buffer => {
  const parts: Buffer[] = [MAGIC, u32le(fingerprint), u32le(blocks.length)];
  for (const { name, sums } of blocks) {
    const bytes = Buffer.from(name, "utf8");
    parts.push(
      Buffer.from([bytes.length]),
      bytes,
      u32le(sums.length),
      Buffer.from(sums.buffer, sums.byteOffset, sums.byteLength),
    );
  }
  const content = Buffer.concat(parts);
  return Buffer.concat([content, u32le(crc32(content))]);
};

const u32le = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

/** Throws MalformedCheckpoint. */
export const decodeChecksums = (file: Buffer): Checksums => {
  if (file.length < HEADER_BYTES + 4 || !file.subarray(0, MAGIC.length).equals(MAGIC))
    throw new MalformedCheckpoint(0, "not a file of checksums");
  const end = file.length - 4;
  if (file.readUInt32LE(end) !== crc32(file.subarray(0, end)))
    throw new MalformedCheckpoint(end, "the checksums are damaged themselves");
  const blocks: BlockSums[] = [];
  let at = HEADER_BYTES;
  const need = (bytes: number): void => {
    if (at + bytes > end) throw new MalformedCheckpoint(at, "the checksums end too early");
  };
  for (let left = file.readUInt32LE(MAGIC.length + 4); left > 0; left--) {
    need(1);
    const length = file[at]!;
    need(1 + length + 4);
    const name = file.toString("utf8", at + 1, at + 1 + length);
    const pages = file.readUInt32LE(at + 1 + length);
    at += 5 + length;
    need(pages * 4);
    const sums = new Uint32Array(pages);
    for (let page = 0; page < pages; page++) sums[page] = file.readUInt32LE(at + page * 4);
    blocks.push({ name, sums });
    at += pages * 4;
  }
  if (at !== end) throw new MalformedCheckpoint(at, "something follows the checksums");
  return { fingerprint: file.readUInt32LE(MAGIC.length), blocks };
};

/** Writes and syncs them aside. The result puts them in their place, once their checkpoint is in its own. Throws what the file system throws. */
export const writeChecksums = (
  path: string,
  id: string,
  checksums: Checksums,
): { readonly put: () => void; readonly drop: () => void } => {
  const place = checksumPath(path);
  const aside = partialPath(place, id);
  const fd = openSync(aside, "wx+", 0o600);
  try {
    // Whoever finds it locked knows that its writer lives: the lock is held until the file is in its place, or gone.
    tryLockFile(fd);
    writeWhole(fd, encodeChecksums(checksums), 0);
    fsyncSync(fd);
  } catch (error) {
    rmSync(aside, { force: true });
    closeSync(fd);
    throw error;
  }
  const ending = (end: () => void) => (): void => {
    try {
      end();
    } finally {
      closeSync(fd);
    }
  };
  return {
    put: ending(() => renameSync(aside, place)),
    drop: ending(() => rmSync(aside, { force: true })),
  };
};

/** Null when there is no such file. */
export const readChecksums = (path: string): Checksums | null => {
  try {
    if (statSync(checksumPath(path)).size > FILE_BYTES_MAX) throw new MalformedCheckpoint(0, "too many checksums");
    return decodeChecksums(readFileSync(checksumPath(path)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
};

/** The checksums beside the checkpoint with this fingerprint: those of another save of its name are of no use. Throws as `readChecksums`. */
export const checksumsOf = (
  path: string,
  fingerprint: number,
): { readonly of: "none" | "this save" | "another save"; readonly blocks: ReadonlyArray<BlockSums> | null } => {
  const sums = readChecksums(path);
  if (sums === null) return { of: "none", blocks: null };
  return sums.fingerprint === fingerprint
    ? { of: "this save", blocks: sums.blocks }
    : { of: "another save", blocks: null };
};
