/**
 * Dirty logging of a device through FEATURE 6, 7 and 8. A server knows memory by DMA_MAP, and libvfio-user reports a mapping as a whole
 * or not at all, so each range is mapped in slices whose bitmap fits one message, and reported slice by slice.
 *
 * Mappings go without a descriptor: Node cannot pass one. libvfio-user logs only memory that it was given a descriptor of, and without one
 * its device can reach memory by messages alone, which are refused here: through such a connection it dirties nothing.
 *
 * Trap: reporting clears. A report that failed, or of which a later slice failed, has lost what it cleared: its range counts as written.
 */
import * as Effect from "effect/Effect";
import { DeviceError, type DmaLogging, type IovaRange } from "../device.ts";
import { type Connection, isRefused } from "./connection.ts";
import {
  decodeLoggingReport,
  FEATURES,
  getFeature,
  LOGGED_RANGES_MAX,
  loggingReportData,
  loggingStartData,
  probeFeature,
  REPORT_BYTES,
  reportBitmapBytes,
  setFeature,
} from "./feature.ts";
import { malformed } from "./header.ts";
import { DMA_MAP_READ, DMA_MAP_WRITE } from "./message.ts";

/** Whether a device says that it logs. libvfio-user's always does, also where SET would end its process: see docs/vfio-user.md. */
export const probeDmaLogging = (connection: Connection): Effect.Effect<boolean, DeviceError> =>
  Effect.gen(function* () {
    for (const index of [FEATURES.dmaLoggingStart, FEATURES.dmaLoggingStop, FEATURES.dmaLoggingReport]) {
      const request = probeFeature(index);
      const answer = yield* connection.tryAsk({ operation: "probe DMA logging", request, read: () => true });
      if (isRefused(answer)) return false;
    }
    return true;
  });

/** The part of `range` that starts at each multiple of `sliceBytes` from its beginning. */
export const slicesOf = (range: IovaRange, sliceBytes: number): ReadonlyArray<IovaRange> => {
  const slices: IovaRange[] = [];
  for (let at = 0; at < range.length; at += sliceBytes)
    slices.push({ iova: range.iova + at, length: Math.min(sliceBytes, range.length - at) });
  return slices;
};

/** `device` is the name in errors; a message holds at most `transferBytesMax` bytes. */
export const makeDmaLogging = (device: string, connection: Connection, transferBytesMax: number): DmaLogging => {
  /** What was mapped for the logging, to be unmapped after it. */
  let mapped: ReadonlyArray<IovaRange> = [];
  /** Whole bytes of bitmap in each slice, so that the slices' bitmaps can be joined. */
  const sliceBytesOf = (pageBytes: number): number =>
    Math.floor((transferBytesMax - 8 - REPORT_BYTES) / 8) * 64 * pageBytes;

  const unmap = Effect.gen(function* () {
    for (const { iova, length } of mapped) {
      // Refused while the device is stopped; a server forgets its mappings with the connection.
      yield* connection.tryAsk({
        operation: "DMA unmap",
        request: { kind: "dma-unmap", flags: 0, iova, bytes: length },
        read: () => true,
      });
    }
    mapped = [];
  });

  const start: DmaLogging["start"] = Effect.fnUntraced(function* (pageBytes, ranges) {
    if (ranges.length > LOGGED_RANGES_MAX) {
      const reason = `${ranges.length} ranges; a device takes ${LOGGED_RANGES_MAX}`;
      return yield* new DeviceError({ device, operation: "start DMA logging", errno: "E2BIG", reason });
    }
    const slices = ranges.flatMap((range) => slicesOf(range, sliceBytesOf(pageBytes)));
    for (const slice of slices) {
      const { iova, length } = slice;
      const flags = DMA_MAP_READ | DMA_MAP_WRITE;
      // A server may know its memory in another way, or know this range already: whether it logs is START's to say.
      const answer = yield* connection.tryAsk({
        operation: "DMA map",
        request: { kind: "dma-map", flags, fdOffset: 0, iova, bytes: length },
        read: () => true,
      });
      if (!isRefused(answer)) mapped = [...mapped, slice];
    }
    yield* connection
      .ask({
        operation: "start DMA logging",
        request: setFeature(FEATURES.dmaLoggingStart, loggingStartData({ pageBytes, ranges })),
        read: () => true,
      })
      .pipe(Effect.tapError(() => Effect.ignore(unmap)));
  });

  const reportSlice = (range: IovaRange, pageBytes: number): Effect.Effect<Uint8Array, DeviceError> => {
    const bitmapBytes = reportBitmapBytes(range.length, pageBytes);
    const question = loggingReportData({ ...range, pageBytes, bitmap: new Uint8Array(0) });
    return connection.ask({
      operation: "report DMA logging",
      request: getFeature(FEATURES.dmaLoggingReport, REPORT_BYTES + bitmapBytes, question),
      read: ({ data }) => {
        const report = decodeLoggingReport(data);
        if ("kind" in report) return report;
        const needed = Math.ceil(Math.ceil(range.length / pageBytes) / 8);
        if (report.bitmap.length < needed) return malformed(`a bitmap of ${report.bitmap.length} bytes, not ${needed}`);
        return report.bitmap.slice(0, needed);
      },
    });
  };

  const report: DmaLogging["report"] = Effect.fnUntraced(function* (range, pageBytes) {
    const parts: Uint8Array[] = [];
    for (const slice of slicesOf(range, sliceBytesOf(pageBytes))) parts.push(yield* reportSlice(slice, pageBytes));
    return parts.length === 1 ? parts[0]! : new Uint8Array(Buffer.concat(parts));
  });

  const stop = connection
    .ask({ operation: "stop DMA logging", request: setFeature(FEATURES.dmaLoggingStop), read: () => true })
    .pipe(Effect.andThen(unmap));

  return { start, report, stop };
};
