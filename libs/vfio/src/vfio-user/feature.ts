/**
 * The features that a migration asks of a device (VFIO_DEVICE_FEATURE_* of include/uapi/linux/vfio.h): indices, and what stands in
 * the data of a FEATURE message. vfio-user takes bitmaps and ranges inside the message where the kernel has a pointer.
 *
 *     1 MIGRATION           GET      u64 flags: STOP_COPY 1, P2P 2, PRE_COPY 4
 *     2 MIG_DEVICE_STATE    GET SET  u32 state, s32 data_fd (of no meaning here: libvfio-user says 0, we say -1)
 *     6 DMA_LOGGING_START   SET      u64 page size, u32 ranges, u32 0, ranges x { u64 iova, u64 length }
 *     7 DMA_LOGGING_STOP    SET      nothing
 *     8 DMA_LOGGING_REPORT  GET      u64 iova, u64 length, u64 page size; in the reply the bitmap behind it, whole u64
 *     9 MIG_DATA_SIZE       GET      u64 bytes. The kernel's; libvfio-user does not have it, servers of ours do
 */
import type { IovaRange } from "../device.ts";
import { DEVICE_STATES, type DeviceState, type MigrationFeatures } from "../state-machine.ts";
import { readU64, writeU64 } from "./body.ts";
import { type Malformed, malformed, viewOf } from "./header.ts";
import { FEATURE_GET, FEATURE_PROBE, FEATURE_SET, type FeatureRequest } from "./message.ts";

export const FEATURES = {
  migration: 1,
  deviceState: 2,
  dmaLoggingStart: 6,
  dmaLoggingStop: 7,
  dmaLoggingReport: 8,
  migrationDataSize: 9,
} as const;

/** Ranges in one DMA_LOGGING_START, as many as the kernel takes (LOG_MAX_RANGES of drivers/vfio/vfio_main.c: one page of them). */
export const LOGGED_RANGES_MAX = 256;

const NOTHING = new Uint8Array(0);
/** Asks for a feature; `answerBytes` is the length of what comes back. `data` is what the question itself holds. */
export const getFeature = (index: number, answerBytes: number, data: Uint8Array = NOTHING): FeatureRequest => ({
  kind: "feature",
  index,
  operations: FEATURE_GET,
  argsz: 8 + answerBytes,
  data,
});
export const setFeature = (index: number, data: Uint8Array = NOTHING): FeatureRequest => ({
  kind: "feature",
  index,
  operations: FEATURE_SET,
  argsz: 8 + data.length,
  data,
});
/** Asks whether a device has a feature; nothing else happens. */
export const probeFeature = (index: number): FeatureRequest => ({
  kind: "feature",
  index,
  operations: FEATURE_PROBE,
  argsz: 8,
  data: NOTHING,
});

export const U64_BYTES = 8;
export const DEVICE_STATE_BYTES = 8;

const STOP_COPY = 1;
const P2P = 2;
const PRE_COPY = 4;

export const migrationFeaturesData = ({ stopCopy, p2p, preCopy }: MigrationFeatures): Uint8Array =>
  u64Data((stopCopy ? STOP_COPY : 0) | (p2p ? P2P : 0) | (preCopy ? PRE_COPY : 0));
/** Flags of later kernels are passed over. */
export const decodeMigrationFeatures = (data: Uint8Array): MigrationFeatures | Malformed => {
  if (data.length < U64_BYTES) return malformed(`migration flags of ${data.length} bytes`);
  const flags = viewOf(data).getUint32(0, true);
  return { stopCopy: (flags & STOP_COPY) !== 0, p2p: (flags & P2P) !== 0, preCopy: (flags & PRE_COPY) !== 0 };
};

export const deviceStateData = (state: DeviceState): Uint8Array => {
  const data = new Uint8Array(DEVICE_STATE_BYTES);
  viewOf(data).setUint32(0, DEVICE_STATES.indexOf(state), true);
  viewOf(data).setInt32(4, -1, true);
  return data;
};
export const decodeDeviceState = (data: Uint8Array): { readonly state: DeviceState } | Malformed => {
  if (data.length < DEVICE_STATE_BYTES) return malformed(`a device state of ${data.length} bytes`);
  const number = viewOf(data).getUint32(0, true);
  const state = DEVICE_STATES[number];
  return state === undefined ? malformed(`device state ${number}`) : { state };
};

export const u64Data = (value: number): Uint8Array => {
  const data = new Uint8Array(U64_BYTES);
  writeU64(viewOf(data), 0, value);
  return data;
};
export const decodeU64 = (data: Uint8Array): { readonly value: number } | Malformed => {
  if (data.length < U64_BYTES) return malformed(`a number of ${data.length} bytes`);
  const value = readU64(viewOf(data), 0);
  return value === null ? malformed("a number beyond 2^53") : { value };
};

/** What DMA_LOGGING_START says; no ranges means all. */
export interface LoggingStart {
  readonly pageBytes: number;
  readonly ranges: ReadonlyArray<IovaRange>;
}
export const loggingStartData = ({ pageBytes, ranges }: LoggingStart): Uint8Array => {
  const data = new Uint8Array(16 + ranges.length * 16);
  const view = viewOf(data);
  writeU64(view, 0, pageBytes);
  view.setUint32(8, ranges.length, true);
  ranges.forEach(({ iova, length }, index) => {
    writeU64(view, 16 + index * 16, iova);
    writeU64(view, 24 + index * 16, length);
  });
  return data;
};
export const decodeLoggingStart = (data: Uint8Array): LoggingStart | Malformed => {
  if (data.length < 16) return malformed(`a logging start of ${data.length} bytes`);
  const view = viewOf(data);
  const pageBytes = readU64(view, 0);
  const count = view.getUint32(8, true);
  if (pageBytes === null || pageBytes === 0) return malformed("pages of no size");
  if (count > LOGGED_RANGES_MAX || data.length < 16 + count * 16)
    return malformed(`${count} ranges in ${data.length} bytes`);
  const ranges: IovaRange[] = [];
  for (let index = 0; index < count; index++) {
    const range = rangeAt(view, 16 + index * 16);
    if (range === null) return malformed(`range ${index} is empty or beyond 2^53`);
    ranges.push(range);
  }
  return { pageBytes, ranges };
};

/** What DMA_LOGGING_REPORT asks about, and its answer: the same with one bit a page. In the question the bitmap is empty. */
export interface LoggingReport extends IovaRange {
  readonly pageBytes: number;
  readonly bitmap: Uint8Array;
}
/** Bytes of a report in front of its bitmap. */
export const REPORT_BYTES = 24;
/** Bytes of the bitmap for a range: one bit a page, whole 64-bit words. */
export const reportBitmapBytes = (length: number, pageBytes: number): number =>
  Math.ceil(Math.ceil(length / pageBytes) / 64) * 8;

export const loggingReportData = ({ iova, length, pageBytes, bitmap }: LoggingReport): Uint8Array => {
  const data = new Uint8Array(REPORT_BYTES + bitmap.length);
  const view = viewOf(data);
  writeU64(view, 0, iova);
  writeU64(view, 8, length);
  writeU64(view, 16, pageBytes);
  data.set(bitmap, REPORT_BYTES);
  return data;
};
export const decodeLoggingReport = (data: Uint8Array): LoggingReport | Malformed => {
  if (data.length < REPORT_BYTES) return malformed(`a logging report of ${data.length} bytes`);
  const view = viewOf(data);
  const range = rangeAt(view, 0);
  const pageBytes = readU64(view, 16);
  if (range === null) return malformed("the range of a logging report is empty or beyond 2^53");
  if (pageBytes === null || pageBytes === 0) return malformed("pages of no size");
  return { ...range, pageBytes, bitmap: data.subarray(REPORT_BYTES) };
};

/** With something in it, and an end that is a number still; else null. */
const rangeAt = (view: DataView, at: number): IovaRange | null => {
  const iova = readU64(view, at);
  const length = readU64(view, at + 8);
  if (iova === null || length === null || length === 0 || !Number.isSafeInteger(iova + length)) return null;
  return { iova, length };
};
