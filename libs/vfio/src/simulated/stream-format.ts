/**
 * The simulated device's migration stream, little endian. It is opaque to all but the device.
 *
 *     header   64 bytes   magic, version, state bytes, initial blocks, block bytes, seed, sequence, DMA pages, crc32 of these
 *     record   32 + n     kind block: number, generation, the block's bytes              } numbered from 0: one that is
 *                         kind counters: how often each DMA page was written, u32 each   } lost, doubled or swapped shows
 *     trailer  64 bytes   number of records, changes, digest of the whole state, crc32 of these
 *
 * Every record has a crc32 of its head and of its data. A block comes once for each of its generations that is sent; the last wins.
 */
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { DeviceFailure } from "./failure.ts";

/** "GWSD", then the format's version. */
const HEADER_MAGIC = 0x44535747;
const VERSION = 1;
/** "BLCK", "DMAC", "TAIL" */
export const BLOCK_RECORD = 0x4b434c42;
export const COUNTERS_RECORD = 0x43414d44;
export const TRAILER = 0x4c494154;

export const HEADER_BYTES = 64;
export const RECORD_HEAD_BYTES = 32;
export const TRAILER_BYTES = 64;
export const DIGEST_BYTES = 32;

export interface StreamHeader {
  readonly stateBytes: number;
  readonly initialBlocks: number;
  readonly blockBytes: number;
  readonly seed: number;
  /** Which of the source's streams this is, from 1. */
  readonly sequence: number;
  /** 4 KiB pages of the DMA window; 0 without one. */
  readonly dmaPages: number;
}

export interface RecordHead {
  readonly kind: typeof BLOCK_RECORD | typeof COUNTERS_RECORD;
  /** From 0, by one. */
  readonly sequence: number;
  /** Number of the block; 0 for counters. */
  readonly block: number;
  readonly generation: number;
  readonly dataBytes: number;
  readonly dataCrc32: number;
}

export interface Trailer {
  readonly records: number;
  /** How often a block changed since the device began. */
  readonly changes: number;
  /** SHA-256, see `digestOf`. */
  readonly digest: Buffer;
}

/** Puts the crc32 of what comes before it at the end. */
const sealed = (bytes: Buffer): Buffer => {
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4);
  return bytes;
};

const requireSeal = (what: string, bytes: Buffer): void => {
  if (bytes.readUInt32LE(bytes.length - 4) !== crc32(bytes.subarray(0, -4))) {
    throw new DeviceFailure("EIO", `the ${what} is damaged: its crc32 does not match`);
  }
};

export const encodeHeader = (header: StreamHeader): Buffer => {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.writeUInt32LE(HEADER_MAGIC, 0);
  bytes.writeUInt32LE(VERSION, 4);
  bytes.writeBigUInt64LE(BigInt(header.stateBytes), 8);
  bytes.writeUInt32LE(header.initialBlocks, 16);
  bytes.writeUInt32LE(header.blockBytes, 20);
  bytes.writeUInt32LE(header.seed, 24);
  bytes.writeUInt32LE(header.sequence, 28);
  bytes.writeUInt32LE(header.dmaPages, 32);
  return sealed(bytes);
};

/** Throws EIO for what is no header of this version. */
export const decodeHeader = (bytes: Buffer): StreamHeader => {
  const magic = bytes.readUInt32LE(0);
  if (magic !== HEADER_MAGIC) throw new DeviceFailure("EIO", `not a stream of this device: 0x${magic.toString(16)}`);
  requireSeal("header", bytes);
  const version = bytes.readUInt32LE(4);
  if (version !== VERSION) throw new DeviceFailure("EIO", `the stream has version ${version}, this device ${VERSION}`);
  return {
    stateBytes: Number(bytes.readBigUInt64LE(8)),
    initialBlocks: bytes.readUInt32LE(16),
    blockBytes: bytes.readUInt32LE(20),
    seed: bytes.readUInt32LE(24),
    sequence: bytes.readUInt32LE(28),
    dmaPages: bytes.readUInt32LE(32),
  };
};

export const encodeRecordHead = (head: RecordHead): Buffer => {
  const bytes = Buffer.alloc(RECORD_HEAD_BYTES);
  bytes.writeUInt32LE(head.kind, 0);
  bytes.writeUInt32LE(head.sequence, 4);
  bytes.writeUInt32LE(head.block, 8);
  bytes.writeUInt32LE(head.generation, 12);
  bytes.writeUInt32LE(head.dataBytes, 16);
  bytes.writeUInt32LE(head.dataCrc32, 20);
  return sealed(bytes);
};

/** Throws EIO for what is no record; what it says is not checked yet. */
export const decodeRecordHead = (bytes: Buffer): RecordHead => {
  requireSeal("head of a record", bytes);
  const kind = bytes.readUInt32LE(0);
  if (kind !== BLOCK_RECORD && kind !== COUNTERS_RECORD) {
    throw new DeviceFailure("EIO", `a record of no known kind: 0x${kind.toString(16)}`);
  }
  return {
    kind,
    sequence: bytes.readUInt32LE(4),
    block: bytes.readUInt32LE(8),
    generation: bytes.readUInt32LE(12),
    dataBytes: bytes.readUInt32LE(16),
    dataCrc32: bytes.readUInt32LE(20),
  };
};

export const encodeTrailer = (trailer: Trailer): Buffer => {
  const bytes = Buffer.alloc(TRAILER_BYTES);
  bytes.writeUInt32LE(TRAILER, 0);
  bytes.writeUInt32LE(trailer.records, 4);
  bytes.writeBigUInt64LE(BigInt(trailer.changes), 8);
  trailer.digest.copy(bytes, 16);
  return sealed(bytes);
};

export const decodeTrailer = (bytes: Buffer): Trailer => {
  requireSeal("trailer", bytes);
  return {
    records: bytes.readUInt32LE(4),
    changes: Number(bytes.readBigUInt64LE(8)),
    digest: bytes.subarray(16, 16 + DIGEST_BYTES),
  };
};

/** All that a device's state is: the bytes of its memory follow from it. */
export interface DeviceContents {
  readonly seed: number;
  readonly stateBytes: number;
  readonly changes: number;
  /** By block. */
  readonly generations: Uint32Array;
  /** By page of the DMA window. */
  readonly dmaCounters: Uint32Array;
}

/** SHA-256 over all of a device's state: two devices with one digest hold the same bytes. */
export const digestOf = (contents: DeviceContents): Buffer => {
  const numbers = Buffer.alloc(24);
  numbers.writeUInt32LE(contents.seed, 0);
  numbers.writeBigUInt64LE(BigInt(contents.stateBytes), 8);
  numbers.writeBigUInt64LE(BigInt(contents.changes), 16);
  return createHash("sha256")
    .update(numbers)
    .update(bytesOf(contents.generations))
    .update(bytesOf(contents.dmaCounters))
    .digest();
};

/** Counters as bytes, without a copy; little endian, as all machines that Node.js runs on here are. */
export const bytesOf = (counters: Uint32Array): Buffer =>
  Buffer.from(counters.buffer, counters.byteOffset, counters.byteLength);
