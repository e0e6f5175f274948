import koffi from "koffi";
import { errnoName, HostError } from "./host-error.ts";

const library = koffi.load(null);

/**
 * The C library of this process. Pointers are bigint; a typed array passed for a `void *` goes by address, without a copy.
 *
 * `ioctl` and `syscall` are variadic in C and declared with fixed arguments here: x86-64 and arm64 Linux pass integer
 * arguments of both kinds in the same registers. koffi does not know `ssize_t`, hence `int64_t`.
 */
export const libc = {
  mmap: library.func("void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)"),
  munmap: library.func("int munmap(void *address, size_t length)"),
  fallocate: library.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)"),
  lseek: library.func("int64_t lseek(int fd, int64_t offset, int whence)"),
  read: library.func("int64_t read(int fd, void *buffer, size_t length)"),
  poll: library.func("int poll(void *descriptors, unsigned long count, int timeout)"),
  flock: library.func("int flock(int fd, int operation)"),
  ioctl: library.func("int ioctl(int fd, unsigned long request, void *argument)"),
  syscall: library.func("long syscall(long number, long a, long b, long c)"),
  prctl: library.func("int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)"),
  getsockopt: library.func("int getsockopt(int fd, int level, int option, void *value, void *length)"),
  sysconf: library.func("long sysconf(int name)"),
} as const;

/** Address of a buffer's first byte. Trap: the buffer must stay referenced for as long as the kernel may use the address. */
export const addressOf = (buffer: ArrayBufferView): bigint => koffi.address(buffer);

/**
 * Memory of this process at an address as a buffer, without a copy: how another thread reaches what one thread has mapped.
 * Trap: touching it after it was unmapped is a segmentation fault, which ends the process; `Mapping.unmap` detaches only its own views.
 */
export const viewOf = (address: bigint, lengthBytes: number): ArrayBuffer => koffi.view(address, lengthBytes);

/** errno of the call that was made last. Read it at once: any other call through koffi overwrites it. */
export const lastErrno = (): string => errnoName(koffi.errno());

/** Passes a result on; -1 becomes a HostError with the errno of this call. */
export const checked = (result: number, operation: string, path?: string): number => {
  if (result !== -1) return result;
  throw new HostError(operation, lastErrno(), path === undefined ? {} : { path });
};
