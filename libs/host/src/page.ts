import { libc } from "./libc.ts";

/** The page size that godwit is made for, bytes. */
export const PAGE_BYTES = 4096;

const _SC_PAGESIZE = 30;

/** The page size of this kernel, bytes. arm64 kernels come with 4, 16 and 64 KiB; only the first one is supported. */
export const kernelPageBytes = (): number => Number(libc.sysconf(_SC_PAGESIZE));
