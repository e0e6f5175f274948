/**
 * Where a builtin guest keeps its files: `<directory>/<name>.sock`, `.ram0` and `.log`; memory in large host pages in
 * `<directory>/huge`, which must be a hugetlbfs.
 */

import { dirname, join } from "node:path";
import { SHARED_MEMORY_DIRECTORY } from "@godwit/host";

export interface GuestFiles {
  readonly socket: string;
  readonly ram: string;
  readonly log: string;
}

/** Where guests are kept unless told otherwise: in memory, and apart for each user. */
export const defaultDirectory = (): string => `${SHARED_MEMORY_DIRECTORY}/godwit-${process.getuid!()}`;

export const hugeDirectoryOf = (directory: string): string => join(directory, "huge");

/** The files of the guest `name` in an absolute directory. `isHuge`: with memory in large host pages. */
export const filesOf = (directory: string, name: string, isHuge = false): GuestFiles => ({
  socket: join(directory, `${name}.sock`),
  ram: join(isHuge ? hugeDirectoryOf(directory) : directory, `${name}.ram0`),
  log: join(directory, `${name}.log`),
});

/** The files of the guest that has this socket. */
export const filesBeside = (socket: string, name: string, isHuge = false): GuestFiles =>
  filesOf(dirname(socket), name, isHuge);
