import { HostError } from "./host-error.ts";
import { checked, lastErrno, libc } from "./libc.ts";

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/**
 * Makes a range of a file read as zeros and gives its memory or disk blocks back; the file keeps its length.
 * Whole pages are freed, parts of pages are cleared. Fails with ENOTSUP where the file system cannot.
 */
export const punchHole = (fd: number, offsetBytes: number, lengthBytes: number): void => {
  checked(
    libc.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offsetBytes, lengthBytes),
    "fallocate(PUNCH_HOLE)",
  );
};

/** Where the first data at or after `offsetBytes` begins, or null when only holes follow. Moves the descriptor's position. */
export const nextData = (fd: number, offsetBytes: number): number | null => {
  const found = Number(libc.lseek(fd, offsetBytes, SEEK_DATA));
  if (found !== -1) return found;
  const errno = lastErrno();
  // ENXIO is lseek's word for "no data behind here".
  if (errno === "ENXIO") return null;
  throw new HostError("lseek(SEEK_DATA)", errno);
};

/** Where the first hole at or after `offsetBytes` begins; the end of the file counts as one. Moves the descriptor's position. */
export const nextHole = (fd: number, offsetBytes: number): number =>
  checked(Number(libc.lseek(fd, offsetBytes, SEEK_HOLE)), "lseek(SEEK_HOLE)");
