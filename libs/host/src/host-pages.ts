/** The unit in which the kernel maps a file, bytes: 4 KiB, or what its hugetlbfs was mounted with. */
import { statfsSync } from "node:fs";
import { PAGE_BYTES } from "./page.ts";

/** f_type of hugetlbfs, whose block size is its page size. */
const HUGETLBFS_MAGIC = 0x958458f6;

/** Throws what the file system throws. */
export const hostPageBytesOf = (path: string): number => {
  const { type, bsize } = statfsSync(path);
  return type === HUGETLBFS_MAGIC ? bsize : PAGE_BYTES;
};
