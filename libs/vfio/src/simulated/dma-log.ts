/** Which pages a device wrote into guest memory (VFIO_DEVICE_FEATURE_DMA_LOGGING_*), since they were reported last. */
import type { IovaRange } from "../device.ts";
import { DeviceFailure } from "./failure.ts";

/** The pages that a device writes, bytes. */
export const DMA_PAGE_BYTES = 4096;
/** Pages of one report: of 1 TiB, whose bitmap has 32 MiB. */
const REPORT_PAGES_MAX = 2 ** 28;

export interface DmaLog {
  /** A page of the window was written. */
  readonly note: (page: number) => void;
  /** Throws EINVAL when it logs already. No ranges: all that the device can reach. */
  readonly start: (pageBytes: number, ranges: ReadonlyArray<IovaRange>) => void;
  /**
   * One bit for each page of the range, in whole 64-bit words, little endian: written since the last report. Throws EINVAL unless
   * it logs, and for a range that is not whole pages.
   */
  readonly report: (range: IovaRange, pageBytes: number) => Uint8Array;
  readonly stop: () => void;
}

/** `pages` pages from `iova` on are all that the device can write. */
export const makeDmaLog = (iova: number, pages: number): DmaLog => {
  /** A byte for each page of the window that is logged; null: it does not log. */
  let written: Uint8Array | null = null;
  let logged: ReadonlyArray<IovaRange> = [];
  const iovaOf = (page: number): number => iova + page * DMA_PAGE_BYTES;
  const isLogged = (page: number): boolean => {
    const address = iovaOf(page);
    return logged.length === 0 || logged.some((range) => address >= range.iova && address < range.iova + range.length);
  };
  return {
    note: (page) => {
      if (written !== null && isLogged(page)) written[page] = 1;
    },
    start: (pageBytes, ranges) => {
      requirePageBytes(pageBytes);
      if (written !== null) throw new DeviceFailure("EINVAL", "the device logs already");
      logged = ranges.map((range) => ({ ...range }));
      written = new Uint8Array(pages);
    },
    report: (range, pageBytes) => {
      requirePageBytes(pageBytes);
      if (written === null) throw new DeviceFailure("EINVAL", "the device does not log");
      const bitmap = emptyBitmap(range, pageBytes);
      const first = Math.max(0, Math.ceil((range.iova - iova) / DMA_PAGE_BYTES));
      const end = Math.min(pages, Math.ceil((range.iova + range.length - iova) / DMA_PAGE_BYTES));
      for (let page = first; page < end; page++) {
        if (written[page] === 0) continue;
        written[page] = 0;
        const bit = Math.floor((iovaOf(page) - range.iova) / pageBytes);
        bitmap[bit >>> 3]! |= 1 << (bit & 7);
      }
      return bitmap;
    },
    stop: () => {
      written = null;
    },
  };
};

const requirePageBytes = (bytes: number): void => {
  if (bytes < DMA_PAGE_BYTES || !Number.isInteger(Math.log2(bytes))) {
    throw new DeviceFailure(
      "EINVAL",
      `pages of ${bytes} bytes; the device logs in powers of two from ${DMA_PAGE_BYTES}`,
    );
  }
};

const emptyBitmap = ({ iova, length }: IovaRange, pageBytes: number): Uint8Array => {
  const pages = length / pageBytes;
  if (!Number.isInteger(pages) || !Number.isInteger(iova / DMA_PAGE_BYTES) || pages < 1 || pages > REPORT_PAGES_MAX) {
    throw new DeviceFailure("EINVAL", `a range of ${length} bytes from ${iova} is not 1 to ${REPORT_PAGES_MAX} pages`);
  }
  return new Uint8Array(Math.ceil(pages / 64) * 8);
};
