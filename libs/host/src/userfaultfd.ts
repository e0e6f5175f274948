import { closeSync, openSync } from "node:fs";
import { errnoOf, HostError } from "./host-error.ts";
import { checked, lastErrno, libc } from "./libc.ts";

/** Feature bits of UFFDIO_API that godwit uses (include/uapi/linux/userfaultfd.h). */
export const UFFD_FEATURES = {
  /** A message about a fault names the thread that waits (Linux 4.14). */
  THREAD_ID: 1n << 8n,
  /** Write protection also holds for pages that are not there yet (Linux 6.4). */
  WP_UNPOPULATED: 1n << 13n,
  /** A write to a protected page is noted and let through by the kernel itself: no event, no thread that waits (Linux 6.7). */
  WP_ASYNC: 1n << 15n,
} as const;

/** Requests of a userfaultfd, as the kernel's header computes them; the same on x86-64 and arm64. */
export const UFFDIO = {
  API: 0xc018aa3f,
  REGISTER: 0xc020aa00,
  UNREGISTER: 0x8010aa01,
  WAKE: 0x8010aa02,
  COPY: 0xc028aa03,
  ZEROPAGE: 0xc020aa04,
} as const;

/** How a userfaultfd could be opened: `user-mode-only` ones do not stop at faults that the kernel itself runs into. */
export type UserfaultfdMode = "full" | "user-mode-only";

export interface Userfaultfd {
  readonly fd: number;
  readonly mode: UserfaultfdMode;
  /** Everything this kernel offers, as bits of UFFD_FEATURES. */
  readonly offered: bigint;
  /** Ends all its registrations. Trap: a thread that waits in a missing fault goes on with a page of zeros. */
  readonly close: () => void;
}

const SYS_USERFAULTFD = process.arch === "arm64" ? 282 : 323;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const UFFD_USER_MODE_ONLY = 1;
/** _IO(0xAA, 0) of /dev/userfaultfd. */
const USERFAULTFD_IOC_NEW = 0xaa00;
const UFFD_API = 0xaan;
/** UFFDIO_REGISTER_MODE_*. */
export const MODES = { MISSING: 1n, WRITE_PROTECT: 2n } as const;

/**
 * Opens a userfaultfd for this process and agrees on `features`.
 *
 * Root, or everyone where vm.unprivileged_userfaultfd is 1, gets a full one; so does who may open /dev/userfaultfd.
 * Everyone else gets one for user-mode faults, which is as good for asynchronous write protection: that raises no event at all.
 * Fails with EINVAL when the kernel lacks a feature.
 */
export const openUserfaultfd = (options: { readonly features: bigint }): Userfaultfd => {
  const { fd, mode } = openAnyMode();
  const api = new BigUint64Array([UFFD_API, options.features, 0n]);
  if (libc.ioctl(fd, UFFDIO.API, api) === -1) {
    const errno = lastErrno();
    closeSync(fd);
    throw new HostError("ioctl(UFFDIO_API)", errno, {
      detail: `this kernel lacks one of the features 0x${options.features.toString(16)}`,
    });
  }
  return { fd, mode, offered: api[1]!, close: () => closeSync(fd) };
};

const openAnyMode = (): { fd: number; mode: UserfaultfdMode } => {
  const flags = O_CLOEXEC | O_NONBLOCK;
  const direct = Number(libc.syscall(SYS_USERFAULTFD, flags, 0, 0));
  if (direct !== -1) return { fd: direct, mode: "full" };
  const refused = lastErrno();
  if (refused !== "EPERM") throw new HostError("userfaultfd", refused);
  const device = openThroughDevice(flags);
  if (device !== null) return { fd: device, mode: "full" };
  const userMode = Number(libc.syscall(SYS_USERFAULTFD, flags | UFFD_USER_MODE_ONLY, 0, 0));
  return { fd: checked(userMode, "userfaultfd"), mode: "user-mode-only" };
};

/** Null when this user may not open the device, or the kernel has none. */
const openThroughDevice = (flags: number): number | null => {
  let device: number;
  try {
    device = openSync("/dev/userfaultfd", "r+");
  } catch (error) {
    if (["EACCES", "EPERM", "ENOENT"].includes(errnoOf(error))) return null;
    throw new HostError("open", errnoOf(error), { path: "/dev/userfaultfd" });
  }
  try {
    // The flags are the argument itself, not a pointer to them.
    return checked(libc.ioctl(device, USERFAULTFD_IOC_NEW, BigInt(flags)), "ioctl(USERFAULTFD_IOC_NEW)");
  } finally {
    closeSync(device);
  }
};

/**
 * Registers a range of the process that opened the userfaultfd, in all of `modes`. Fails with EBUSY when another userfaultfd has the
 * range, with EINVAL when it is not mapped or of a kind that cannot.
 */
export const registerRange = (fd: number, address: bigint, lengthBytes: number, modes: bigint): void => {
  const request = new BigUint64Array([address, BigInt(lengthBytes), modes, 0n]);
  checked(libc.ioctl(fd, UFFDIO.REGISTER, request), "ioctl(UFFDIO_REGISTER)");
};

/** Registers a range for write protection. Nothing is protected yet: with WP_ASYNC that is done by the first scan. */
export const registerWriteProtect = (fd: number, address: bigint, lengthBytes: number): void =>
  registerRange(fd, address, lengthBytes, MODES.WRITE_PROTECT);

/**
 * Prepares this process's own memory for being tracked from another process through /proc/PID/pagemap. To be called by
 * the process that runs the guest: writes are noticed per address space, and only its owner can register it.
 *
 * Trap: the registration ends when the returned userfaultfd is closed, so keep it for as long as the guest lives.
 */
export const armOwnMemory = (
  mappings: ReadonlyArray<{ readonly address: bigint; readonly lengthBytes: number }>,
): Userfaultfd => {
  const userfaultfd = openUserfaultfd({
    features: UFFD_FEATURES.WP_ASYNC | UFFD_FEATURES.WP_UNPOPULATED | UFFD_FEATURES.THREAD_ID,
  });
  try {
    for (const { address, lengthBytes } of mappings) registerWriteProtect(userfaultfd.fd, address, lengthBytes);
    return userfaultfd;
  } catch (error) {
    userfaultfd.close();
    throw error;
  }
};
