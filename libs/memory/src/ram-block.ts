/** The unit of dirty tracking, zero detection and transfer, bytes. x86-64's base page; arm64 hosts with larger pages are refused by `doctor`. */
export const PAGE_BYTES = 4096;

/**
 * A named, contiguous range of guest memory, backed by a file that every process of the host may open.
 *
 * - `path`: the file (`/dev/shm/...`, or `/proc/PID/fd/N` for a memfd); `fileOffset` is where the block starts in it, bytes
 * - `lengthBytes`: a multiple of PAGE_BYTES
 * - `hostPageBytes`: the page size the host maps it with (4 KiB, 2 MiB, 1 GiB)
 */
export interface RamBlock {
  readonly name: string;
  readonly lengthBytes: number;
  readonly hostPageBytes: number;
  readonly path: string;
  readonly fileOffset: number;
}

/** Pages in a block. */
export const pageCount = (block: RamBlock): number => block.lengthBytes / PAGE_BYTES;
