/** VFIO_DEVICE_FEATURE_DMA_LOGGING_*: the device's own record of what it wrote into guest memory. */
import { HostError, type IoctlThread, type Pointee } from "@godwit/host";
import type { IovaRange } from "../device.ts";
import { FEATURE, OPERATION, probeOf, reportDmaLogging, startDmaLogging, stopDmaLogging, VFIO } from "./uapi.ts";

/** Ranges of one START: what every kernel takes, since they fill one page of it (uAPI, dma_logging_range). */
export const LOGGING_RANGES_MAX = 4096 / 16;
/** A bitmap of one REPORT, bytes: 512 GiB of 4 KiB pages. A larger range is to be asked for in parts. */
export const BITMAP_BYTES_MAX = 16 * 1024 * 1024;

export interface KernelDmaLogging {
  readonly start: (pageBytes: number, ranges: ReadonlyArray<IovaRange>) => Promise<void>;
  readonly report: (range: IovaRange, pageBytes: number) => Promise<Uint8Array>;
  readonly stop: () => Promise<void>;
}

/**
 * null: the device does not log, or the kernel cannot report. The kernel says the latter, EOPNOTSUPP, only to a REPORT, which
 * is tried here where nobody can be logging yet: on a device that was opened just now, not on a borrowed one, whose VMM would
 * lose what this REPORT clears.
 */
export const findDmaLogging = async (
  fd: number,
  thread: IoctlThread,
  opened: "here" | "elsewhere",
): Promise<KernelDmaLogging | null> => {
  const feature = (argument: Uint8Array, pointees: ReadonlyArray<Pointee> = []) =>
    thread.call({ fd, name: "VFIO_DEVICE_FEATURE", request: VFIO.DEVICE_FEATURE, argument, pointees });

  const start = async (pageBytes: number, ranges: ReadonlyArray<IovaRange>): Promise<void> => {
    if (ranges.length > LOGGING_RANGES_MAX) {
      const detail = `${ranges.length} ranges, the kernel takes ${LOGGING_RANGES_MAX}`;
      throw new HostError("start", "E2BIG", { detail });
    }
    const { bytes, pointee } = startDmaLogging(pageBytes, ranges);
    await feature(bytes, [pointee]);
  };
  const report = async (range: IovaRange, pageBytes: number): Promise<Uint8Array> => {
    const bitmapBytes = Math.ceil(range.length / pageBytes / 8);
    if (bitmapBytes > BITMAP_BYTES_MAX) {
      const detail = `the bitmap would have ${bitmapBytes} bytes, more than ${BITMAP_BYTES_MAX}`;
      throw new HostError("report", "E2BIG", { detail });
    }
    const { bytes, pointee } = reportDmaLogging(range, pageBytes);
    const { pointees } = await feature(bytes, [pointee]);
    return pointees[0]!.subarray(0, bitmapBytes);
  };
  const stop = async (): Promise<void> => {
    await feature(stopDmaLogging());
  };

  try {
    await feature(probeOf(FEATURE.DMA_LOGGING_START, OPERATION.SET));
  } catch {
    // ENOTTY: no such feature. Whatever else it might say, it is not usable.
    return null;
  }
  if (opened === "elsewhere") return { start, report, stop };
  try {
    await report({ iova: 0, length: TRIAL_PAGE_BYTES }, TRIAL_PAGE_BYTES);
  } catch (error) {
    // A driver may well refuse it for not being started; that says nothing against it.
    if (error instanceof HostError && error.errno === "ENOTSUP") return null;
  }
  return { start, report, stop };
};

const TRIAL_PAGE_BYTES = 4096;
