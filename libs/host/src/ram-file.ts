import { closeSync, ftruncateSync, openSync, statfsSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf, HostError } from "./host-error.ts";
import { hostPageBytesOf } from "./host-pages.ts";
import { PAGE_BYTES } from "./page.ts";

/** Only the owner reads or writes guest memory. */
const RAM_FILE_MODE = 0o600;

/** Bytes that a plain user can still put on the file system of `path`. Fails when the path does not exist. */
export const freeBytes = (path: string): number => {
  try {
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize;
  } catch (error) {
    throw new HostError("statfs", errnoOf(error), { path });
  }
};

/**
 * Creates a sparse file of zeros for guest memory and returns its descriptor, open for reading and writing.
 *
 * Fails with EEXIST when the path is taken, and with ENOSPC when the file system could not hold the file once it is full:
 * running out later would hit a guest in the middle of a store. The space is checked, not reserved.
 */
export const createRamFile = (path: string, lengthBytes: number): number => {
  const directory = dirname(path);
  const free = freeBytes(directory);
  // A hugetlbfs does not say what is free: mapping the file reserves its pages, or fails.
  if (free < lengthBytes && hostPageBytesOf(directory) === PAGE_BYTES) {
    throw new HostError("create", "ENOSPC", {
      path,
      detail: `the file system of ${directory} has ${free} bytes free, the file needs ${lengthBytes}`,
    });
  }
  let fd: number;
  try {
    fd = openSync(path, "wx+", RAM_FILE_MODE);
  } catch (error) {
    throw new HostError("create", errnoOf(error), { path });
  }
  try {
    ftruncateSync(fd, lengthBytes);
    return fd;
  } catch (error) {
    closeSync(fd);
    unlinkSync(path);
    throw new HostError("ftruncate", errnoOf(error), { path });
  }
};
