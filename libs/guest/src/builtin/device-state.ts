/**
 * The device state of a builtin guest as a file: what its vCPUs do and where they are, and which version of each page
 * guest memory must hold.
 *
 *     offset  bytes
 *          0      8  magic "GDWTVCPU"
 *          8      4  format version, 1
 *         12      4  crc32 of all that follows
 *         16      4  length of the header, bytes
 *         20      n  header, JSON: machine, memoryBytes, workload, positions
 *       20+n         ledger: one u32 for each page that vCPUs have, zlib
 *
 * Numbers are little-endian. Read in this order: size limit, magic, version, crc32, header, ledger.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { crc32, deflateSync, inflateSync } from "node:zlib";
import { PAGE_BYTES } from "./kernel/page.ts";
import { Refusal } from "./refusal.ts";
import { pagesOfVcpus } from "./share.ts";
import { parseWorkload } from "./spec.ts";
import { emptyLedger, type VcpuState } from "./vcpus.ts";

/** The machine type both sides must have; it changes when the workload or the page content does. */
export const MACHINE = "builtin-1";

const MAGIC = Buffer.from("GDWTVCPU", "latin1");
const FORMAT_VERSION = 1;
const FRAME_BYTES = 20;
/** A header is a few hundred bytes, and 20 for each vCPU. */
const HEADER_BYTES_MAX = 16_384;
/** zlib's level 1: the guest stands still while this is written. */
const ZLIB_LEVEL = 1;

/** The largest device state of a guest of `memoryBytes`, bytes: zlib adds at most 5 bytes for 16 KiB, and 6. */
export const deviceStateBytesMax = (memoryBytes: number): number => {
  const ledgerBytes = (memoryBytes / PAGE_BYTES) * 4;
  return FRAME_BYTES + HEADER_BYTES_MAX + ledgerBytes + 5 * Math.ceil(ledgerBytes / 16_384) + 64;
};

const bad = (reason: string): Refusal => new Refusal("device-state-failed", reason);

/** The file's content. */
export const encodeDeviceState = (state: VcpuState, memoryBytes: number): Buffer => {
  const { workload, positions, ledger } = state;
  const header = Buffer.from(JSON.stringify({ machine: MACHINE, memoryBytes, workload, positions }));
  const frame = Buffer.alloc(FRAME_BYTES);
  MAGIC.copy(frame);
  frame.writeUInt32LE(FORMAT_VERSION, 8);
  frame.writeUInt32LE(header.length, 16);
  // A copy: zlib does not take shared memory.
  const packed = deflateSync(new Uint32Array(ledger), { level: ZLIB_LEVEL });
  const file = Buffer.concat([frame, header, packed]);
  file.writeUInt32LE(crc32(file.subarray(16)), 12);
  return file;
};

/** The state in a file for a guest of `memoryBytes`; throws a Refusal that says what is wrong with it. */
export const decodeDeviceState = (file: Buffer, memoryBytes: number): VcpuState => {
  requireSize(file.length, memoryBytes);
  if (file.length < FRAME_BYTES) throw bad(`device state ends after ${file.length} bytes`);
  if (!file.subarray(0, 8).equals(MAGIC)) throw bad("this is not the device state of a builtin guest: wrong magic");
  const version = file.readUInt32LE(8);
  if (version !== FORMAT_VERSION)
    throw bad(`device state has format version ${version}, this guest reads ${FORMAT_VERSION}`);
  if (file.readUInt32LE(12) !== crc32(file.subarray(16))) throw bad("device state is damaged: its crc32 is wrong");
  const headerBytes = file.readUInt32LE(16);
  if (headerBytes > HEADER_BYTES_MAX || FRAME_BYTES + headerBytes > file.length) {
    throw bad(`device state names a header of ${headerBytes} bytes`);
  }
  const header = decodeHeader(file.subarray(FRAME_BYTES, FRAME_BYTES + headerBytes), memoryBytes);
  const pages = pagesOfVcpus(header.workload, memoryBytes);
  return { ...header, ledger: decodeLedger(file.subarray(FRAME_BYTES + headerBytes), pages) };
};

const decodeHeader = (bytes: Buffer, memoryBytes: number): Pick<VcpuState, "workload" | "positions"> => {
  try {
    const header = JSON.parse(bytes.toString("utf8")) as Record<string, unknown>;
    if (header["machine"] !== MACHINE)
      throw bad(`device state is of machine ${header["machine"]}, this guest is ${MACHINE}`);
    if (header["memoryBytes"] !== memoryBytes) {
      throw bad(
        `device state is of a guest with ${header["memoryBytes"]} bytes of memory, this one has ${memoryBytes}`,
      );
    }
    const workload = parseWorkload(header["workload"], memoryBytes);
    const positions = header["positions"];
    if (!Array.isArray(positions) || positions.length !== workload.vcpus || !positions.every(isPosition)) {
      throw bad(`device state has no position for each of its ${workload.vcpus} vCPUs`);
    }
    return { workload, positions };
  } catch (cause) {
    throw bad(cause instanceof Error ? cause.message : String(cause));
  }
};

const isPosition = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;

const decodeLedger = (packed: Buffer, pages: number): VcpuState["ledger"] => {
  const ledger = emptyLedger(pages);
  let bytes: Buffer;
  try {
    bytes = inflateSync(packed, { maxOutputLength: ledger.byteLength });
  } catch (cause) {
    throw bad(`the ledger cannot be decompressed: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  if (bytes.length !== ledger.byteLength) {
    throw bad(`the ledger has ${bytes.length} bytes, not ${ledger.byteLength}`);
  }
  new Uint8Array(ledger.buffer).set(bytes);
  return ledger;
};

const requireSize = (bytes: number, memoryBytes: number): void => {
  const limit = deviceStateBytesMax(memoryBytes);
  if (bytes > limit) throw bad(`device state has ${bytes} bytes, more than the ${limit} of a guest of this size`);
};

/** Writes a new file, which must not exist yet, and returns its length, bytes. What is written in part is removed. Not synced to disk: it is read at once, on this host, while the guest stands still. */
export const writeDeviceState = (path: string, content: Buffer): number => {
  const fd = openSync(path, "wx", 0o600);
  try {
    for (let at = 0; at < content.length; ) at += writeSync(fd, content, at);
    return content.length;
  } catch (cause) {
    rmSync(path, { force: true });
    throw cause;
  } finally {
    closeSync(fd);
  }
};

/** Reads a file no larger than a guest of `memoryBytes` can have. */
export const readDeviceState = (path: string, memoryBytes: number): Buffer => {
  // A path that names a pipe must not hang the guest.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw bad(`${path} is not a file`);
    requireSize(stat.size, memoryBytes);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
};
