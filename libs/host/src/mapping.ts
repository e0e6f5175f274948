import { fstatSync } from "node:fs";
import { HostError } from "./host-error.ts";
import { checked, lastErrno, libc, viewOf } from "./libc.ts";

/** A range of a file as memory of this process, shared with everyone else who maps the file. */
export interface Mapping {
  /** The mapped bytes. Of length 0 once it is unmapped, as is every view of its buffer in this thread. */
  readonly bytes: Uint8Array;
  /** Where it lies in this process; what the kernel's tracking interfaces want. */
  readonly address: bigint;
  readonly lengthBytes: number;
  /** Gives the memory back. Harmless when called again. */
  readonly unmap: () => void;
}

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
/** What mmap returns on failure: (void *)-1. */
const MAP_FAILED = 2n ** 64n - 1n;

/**
 * Maps `lengthBytes` of an open file, starting at `offsetBytes` (a multiple of the page size), shared.
 *
 * Fails with EOVERFLOW when the file ends before the range does: touching such a page would raise SIGBUS and end the whole
 * process. Trap: the same happens when somebody truncates the file later, so map only files that are not cut, and read
 * what a stranger may cut with `read`. Trap: reading a hole of a tmpfs file through a mapping allocates it.
 */
export const mapFile = (
  fd: number,
  range: { readonly offsetBytes: number; readonly lengthBytes: number },
  access: "read-only" | "writable",
): Mapping => {
  const { offsetBytes, lengthBytes } = range;
  const fileBytes = fstatSync(fd).size;
  if (offsetBytes + lengthBytes > fileBytes) {
    throw new HostError("mmap", "EOVERFLOW", {
      detail: `the file has ${fileBytes} bytes, the range ends at ${offsetBytes + lengthBytes}`,
    });
  }
  const protection = access === "writable" ? PROT_READ | PROT_WRITE : PROT_READ;
  const address: bigint = libc.mmap(null, lengthBytes, protection, MAP_SHARED, fd, offsetBytes);
  if (address === MAP_FAILED) throw new HostError("mmap", lastErrno());
  const buffer = viewOf(address, lengthBytes);
  const unmap = () => {
    if (buffer.detached) return;
    // Detaches every view first: a late access then finds nothing instead of ending the process.
    buffer.transfer(0);
    checked(libc.munmap(address, lengthBytes), "munmap");
  };
  return { bytes: new Uint8Array(buffer), address, lengthBytes, unmap };
};
