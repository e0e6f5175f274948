import { writeSync } from "node:fs";
import { HostError } from "./host-error.ts";
import { lastErrno, libc } from "./libc.ts";

/** Zeros written at once where `fallocate` does not work, bytes. */
const ZEROS_BYTES = 1024 ** 2;

/**
 * Gives a new, empty file its length and all its memory or disk blocks; it reads as zeros. Fails with ENOSPC here, where that is an
 * error: a store into a mapped hole of a full file system is a SIGBUS, which ends the process.
 */
export const allocateFile = (fd: number, lengthBytes: number, path?: string): void => {
  if (libc.fallocate(fd, 0, 0, lengthBytes) === 0) return;
  const errno = lastErrno();
  if (errno === "ENOSPC") throw new HostError("fallocate", errno, path === undefined ? {} : { path });
  // A file system that cannot do it, or a signal that came between: writing does the same, and says what is wrong if it cannot.
  const zeros = new Uint8Array(Math.min(ZEROS_BYTES, lengthBytes));
  for (let done = 0; done < lengthBytes; )
    done += writeSync(fd, zeros, 0, Math.min(zeros.length, lengthBytes - done), done);
};
