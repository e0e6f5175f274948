/**
 * A checkpoint in pieces, as an object store keeps it: the file in windows, those that are holes left out and the others packed, and a
 * manifest that says where each belongs. The manifest is what makes it a checkpoint, so it is put last.
 *
 * Holes within a window are packed with it: a guest's zero pages lie between others, and an object for each run of pages would be one
 * for every few.
 */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, fsyncSync, ftruncateSync, openSync } from "node:fs";
import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompress } from "node:zlib";
import { nextData, readWhole, tryLockFile, writeWhole } from "@godwit/host";
import { BLOCK_BYTES_MAX } from "@godwit/protocol";
import * as Schema from "effect/Schema";
import { MalformedCheckpoint } from "./malformed.ts";

/** A window of the file, bytes: in memory as a whole, sent again as a whole when the connection breaks in the middle. */
export const PART_BYTES_MAX = 8 * 1024 ** 2;
/** Zstandard adds 3 bytes for 128 KiB, and a frame. */
export const PACKED_BYTES_MAX = PART_BYTES_MAX + PART_BYTES_MAX / 256 + 64;
/** A manifest with a part for every 8 MiB of 8 TiB has 100 MB; a guest of 1 TiB fits this. */
export const MANIFEST_BYTES_MAX = 16 * 1024 ** 2;

const pack = promisify(zstdCompress);
const unpack = promisify(zstdDecompress);

const bytes = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: BLOCK_BYTES_MAX + 1024 ** 4 }));
const Part = Schema.Struct({
  offset: bytes,
  bytes: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: PART_BYTES_MAX })),
  /** Zstandard; content that cannot be packed is a little longer than it was. */
  packed: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: PACKED_BYTES_MAX })),
  /** Of what is packed, hex. */
  sha256: Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/)),
});
export type Part = typeof Part.Type;

export const PartsManifest = Schema.Struct({
  version: Schema.Literal(1),
  /** Of the save: names its parts. */
  id: Schema.String.check(Schema.isPattern(/^[0-9a-f]{16}$/)),
  /** The file's length. */
  bytes,
  /** Where its stream begins. */
  start: bytes,
  parts: Schema.Array(Part),
});
export type PartsManifest = typeof PartsManifest.Type;

const ManifestJson = Schema.fromJsonString(PartsManifest);
const decode = Schema.decodeUnknownSync(ManifestJson);
const encode = Schema.encodeSync(ManifestJson);

export const encodeManifest = (manifest: PartsManifest): Uint8Array => new TextEncoder().encode(encode(manifest));

/** Throws MalformedCheckpoint. Parts lie within the file, in order, and none over another. */
export const decodeManifest = (content: Uint8Array): PartsManifest => {
  if (content.length > MANIFEST_BYTES_MAX) throw new MalformedCheckpoint(0, `a manifest of ${content.length} bytes`);
  let manifest: PartsManifest;
  try {
    manifest = decode(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (error) {
    throw new MalformedCheckpoint(
      0,
      `not a manifest of a checkpoint: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  let free = 0;
  for (const [number, part] of manifest.parts.entries()) {
    if (part.offset < free) throw new MalformedCheckpoint(part.offset, `part ${number} lies over the one before it`);
    free = part.offset + part.bytes;
    if (free > manifest.bytes) throw new MalformedCheckpoint(part.offset, `part ${number} ends behind the file`);
  }
  return manifest;
};

/** What a name's parts are called; no checkpoint's own name begins with a dot. */
export const partPrefix = (name: string): string => `.parts/${name}/`;
export const partName = (name: string, id: string, number: number): string => `${partPrefix(name)}${id}/${number}`;

/** The same digest as object stores write it. */
export const storeDigest = (sha256: string): string => `SHA-256=${Buffer.from(sha256, "hex").toString("base64url")}`;

/** The windows of an open file in which anything stands. */
export const windowsOf = (fd: number): ReadonlyArray<{ readonly offset: number; readonly bytes: number }> => {
  const end = fstatSync(fd).size;
  const found: Array<{ readonly offset: number; readonly bytes: number }> = [];
  for (let data = nextData(fd, 0); data !== null && data < end; ) {
    const offset = Math.floor(data / PART_BYTES_MAX) * PART_BYTES_MAX;
    found.push({ offset, bytes: Math.min(PART_BYTES_MAX, end - offset) });
    data = nextData(fd, offset + PART_BYTES_MAX);
  }
  return found;
};

/** A part, and what of it is put. Throws MalformedCheckpoint when the file was cut meanwhile. */
export const packPart = async (
  fd: number,
  offset: number,
  length: number,
): Promise<{ readonly part: Part; readonly packed: Uint8Array }> => {
  const content = new Uint8Array(length);
  const count = readWhole(fd, content, offset);
  if (count < length) throw new MalformedCheckpoint(offset + count, "the file ends within a part");
  const packed = await pack(content, { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
  return { part: { offset, bytes: length, packed: packed.length, sha256: sha256Of(packed) }, packed };
};

const sha256Of = (content: Uint8Array): string => createHash("sha256").update(content).digest("hex");

/** A file that is put together from its parts. */
export interface Assembly {
  /** Rejects with MalformedCheckpoint when the content is not what the manifest says. */
  readonly place: (number: number, packed: Uint8Array) => Promise<void>;
  readonly sync: () => void;
  /** Until then the file is locked: nobody takes it for a leftover. */
  readonly close: () => void;
}

/** What is zero stays a hole: pages of it, at their places in the file. */
const HOLE_BYTES = 4096;

/** Makes the file at `path`, where there must be none. */
export const assemble = (path: string, manifest: PartsManifest): Assembly => {
  const fd = openSync(path, "wx", 0o600);
  tryLockFile(fd);
  ftruncateSync(fd, manifest.bytes);
  return {
    place: async (number, packed) => {
      const part = manifest.parts[number]!;
      if (packed.length !== part.packed || sha256Of(packed) !== part.sha256)
        throw damaged(part, number, "its SHA-256 is not the one that was saved");
      const content = await unpack(packed, { maxOutputLength: part.bytes }).catch((cause: Error) => {
        throw damaged(part, number, cause.message);
      });
      if (content.length !== part.bytes) throw damaged(part, number, `it unpacks to ${content.length} bytes`);
      for (let at = 0; at < content.length; ) {
        let end = at;
        while (end < content.length && !isZero(content, end)) end += HOLE_BYTES;
        if (end > at) writeWhole(fd, content.subarray(at, Math.min(end, content.length)), part.offset + at);
        at = end + HOLE_BYTES;
      }
    },
    sync: () => fsyncSync(fd),
    close: () => closeSync(fd),
  };
};

const damaged = (part: Part, number: number, why: string): MalformedCheckpoint =>
  new MalformedCheckpoint(part.offset, `part ${number} is damaged: ${why}`);

const ZEROS = Buffer.alloc(HOLE_BYTES);
const isZero = (content: Buffer, at: number): boolean => {
  const end = Math.min(content.length, at + HOLE_BYTES);
  return content.compare(ZEROS, 0, end - at, at, end) === 0;
};
