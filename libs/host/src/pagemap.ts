import { closeSync, openSync, readSync } from "node:fs";
import { errnoOf, HostError } from "./host-error.ts";
import { addressOf, lastErrno, libc } from "./libc.ts";
import { PAGE_BYTES } from "./page.ts";

/**
 * An open /proc/PID/pagemap. It belongs to the memory that the process had when it was opened.
 *
 * Trap: after that process has ended, scans succeed and find nothing. Whoever trusts "nothing was written" has to make sure
 * that the process still lives and still maps the range.
 */
export interface Pagemap {
  readonly pid: number;
  readonly fd: number;
  readonly close: () => void;
}

/** Opens the pagemap of a process of the same user, or of any process as root. Fails with EACCES or ENOENT otherwise. */
export const openPagemap = (pid: number): Pagemap => {
  const path = `/proc/${pid}/pagemap`;
  try {
    const fd = openSync(path, "r");
    return { pid, fd, close: () => closeSync(fd) };
  } catch (error) {
    throw new HostError("open", errnoOf(error), { path });
  }
};

/** Runs of pages that one call reports at most: 24 KiB of answers. More would not be faster: a lone page costs 0.3 us either way. */
export const SCAN_RUNS_MAX = 1024;

const PAGEMAP_SCAN = 0xc0606610;
const PM_SCAN_WP_MATCHING = 1n << 0n;
const PM_SCAN_CHECK_WPASYNC = 1n << 1n;
const PAGE_IS_WRITTEN = 1n << 1n;
/** Words of `struct pm_scan_arg`. */
const ARG_WORDS = 12;
const ARG = {
  size: 0,
  flags: 1,
  start: 2,
  end: 3,
  walkEnd: 4,
  vec: 5,
  vecLen: 6,
  categoryMask: 9,
  returnMask: 11,
} as const;
/** 32-bit words of one `struct page_region` {start, end, categories}. */
const REGION_WORDS = 6;
const WORD_SPAN = 2 ** 32;

/** What one scan of a part of a range found. The runs are overwritten by the next call on the same scanner. */
export interface ScanResult {
  /** Pairs of (first page, pages), counted from the start of the range; only the first `runCount` pairs count. */
  readonly runs: Uint32Array;
  readonly runCount: number;
  /** Pages from the start of the range that are done. Smaller than asked for when the runs were full: go on from here. */
  readonly scannedPages: number;
}

/** Finds written pages of one process. Holds the buffers that it and the kernel share, so make one and keep it. */
export interface WrittenPageScanner {
  /**
   * Finds the pages of a range that were written since they were last reported, and protects exactly those again, in one
   * atomic step for each page. The range must be registered with userfaultfd by the process itself.
   *
   * Fails with EPERM when a part of the range is not registered (any more), with ENOTTY where the kernel is older than 6.7.
   */
  readonly scan: (address: bigint, pages: number) => ScanResult;
}

/** Makes a scanner for an open pagemap. */
export const makeWrittenPageScanner = (pagemap: Pagemap): WrittenPageScanner => {
  const regions = new Uint32Array(SCAN_RUNS_MAX * REGION_WORDS);
  const runs = new Uint32Array(SCAN_RUNS_MAX * 2);
  const argument = new BigUint64Array(ARG_WORDS);
  argument[ARG.size] = BigInt(argument.byteLength);
  argument[ARG.flags] = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
  argument[ARG.vec] = addressOf(regions);
  argument[ARG.vecLen] = BigInt(SCAN_RUNS_MAX);
  argument[ARG.categoryMask] = PAGE_IS_WRITTEN;
  argument[ARG.returnMask] = PAGE_IS_WRITTEN;

  const scan = (address: bigint, pages: number): ScanResult => {
    argument[ARG.start] = address;
    argument[ARG.end] = address + BigInt(pages) * BigInt(PAGE_BYTES);
    argument[ARG.walkEnd] = 0n;
    const runCount = libc.ioctl(pagemap.fd, PAGEMAP_SCAN, argument);
    if (runCount === -1)
      throw new HostError("ioctl(PAGEMAP_SCAN)", lastErrno(), { path: `/proc/${pagemap.pid}/pagemap` });
    const base = Number(address);
    for (let run = 0; run < runCount; run++) {
      const at = run * REGION_WORDS;
      // User addresses have 48 or 52 bits, so a double holds them; bigint arithmetic here would cost ten times as much.
      const start = regions[at]! + regions[at + 1]! * WORD_SPAN;
      const end = regions[at + 2]! + regions[at + 3]! * WORD_SPAN;
      runs[run * 2] = (start - base) / PAGE_BYTES;
      runs[run * 2 + 1] = (end - start) / PAGE_BYTES;
    }
    return { runs, runCount, scannedPages: Number(argument[ARG.walkEnd]! - address) / PAGE_BYTES };
  };
  return { scan };
};

/** Bytes of one pagemap entry. */
export const PAGEMAP_ENTRY_BYTES = 8;

/**
 * Bits of the upper half of a pagemap entry, as 32-bit numbers: bit 55 of the entry is bit 23 here.
 * `PRESENT` and `SWAPPED`: the page has memory, or swap; with neither, this process has no entry for it.
 */
export const PAGEMAP_HIGH = { SOFT_DIRTY: 1 << 23, SWAPPED: 1 << 30, PRESENT: 1 << 31 } as const;

/**
 * Reads the pagemap entries of `pages` pages from `address` into `target`, two 32-bit words for each page, the upper one second.
 * Fails with ESRCH when the process has ended (the file then reads as empty).
 */
export const readPagemap = (pagemap: Pagemap, address: bigint, pages: number, target: Uint32Array): void => {
  const bytes = new Uint8Array(target.buffer, target.byteOffset, pages * PAGEMAP_ENTRY_BYTES);
  const start = (Number(address) / PAGE_BYTES) * PAGEMAP_ENTRY_BYTES;
  for (let done = 0; done < bytes.length; ) {
    const count = readSync(pagemap.fd, bytes, done, bytes.length - done, start + done);
    if (count === 0) throw new HostError("read", "ESRCH", { path: `/proc/${pagemap.pid}/pagemap` });
    done += count;
  }
};
