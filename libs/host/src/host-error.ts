import { getSystemErrorMessage, getSystemErrorName } from "node:util";

/**
 * A system call or a file of /proc failed.
 *
 * - `operation`: the call, in the kernel's own words ("mmap", "ioctl(PAGEMAP_SCAN)")
 * - `errno`: its name ("ENOSPC"); tests and callers compare this, never the text
 * - `path`: the file it was about, where there is one
 * - `detail`: what the errno alone does not say, where there is something
 * - `reason`: the detail, or else the C library's words for the errno
 */
export class HostError extends Error {
  override readonly name = "HostError";
  readonly operation: string;
  readonly errno: string;
  readonly path: string | undefined;
  readonly detail: string | undefined;
  readonly reason: string;

  constructor(operation: string, errno: string, about: { readonly path?: string; readonly detail?: string } = {}) {
    const where = about.path === undefined ? "" : ` ${about.path}`;
    const reason = about.detail ?? describeErrno(errno);
    super(`${operation}${where}: ${reason} (${errno})`);
    this.reason = reason;
    this.operation = operation;
    this.errno = errno;
    this.path = about.path;
    this.detail = about.detail;
  }
}

/** What device drivers answer and Node has no name for (include/uapi/asm-generic/errno.h), with the C library's words. */
const UNNAMED: Readonly<Record<number, { readonly name: string; readonly words: string }>> = {
  42: { name: "ENOMSG", words: "no message of desired type" },
  62: { name: "ETIME", words: "timer expired" },
  70: { name: "ECOMM", words: "communication error on send" },
  74: { name: "EBADMSG", words: "bad message" },
  77: { name: "EBADFD", words: "file descriptor in bad state" },
  117: { name: "EUCLEAN", words: "structure needs cleaning" },
};

/** Name of an errno number, "ENOSPC" for 28. Where the headers have two names it is the one that Node gives: ENOTSUP, EAGAIN. */
export const errnoName = (errno: number): string => UNNAMED[errno]?.name ?? getSystemErrorName(-errno);

/** The errno name of whatever a `node:fs` call threw, or of an error whose own `errno` is a name, as a HostError's is; "UNKNOWN" for anything else. */
export const errnoOf = (error: unknown): string => {
  if (error instanceof HostError) return error.errno;
  const { code, errno } = (error ?? {}) as { readonly code?: unknown; readonly errno?: unknown };
  if (typeof errno === "number" && UNNAMED[-errno] !== undefined) return errnoName(-errno);
  const name = typeof errno === "string" ? errno : code;
  return typeof name === "string" ? name : "UNKNOWN";
};

const errnoNumbers = new Map<string, number>();
const describeErrno = (name: string): string => {
  if (errnoNumbers.size === 0) {
    // 133 is EHWPOISON, the last errno that Linux defines on x86-64 and arm64.
    for (let errno = 1; errno <= 133; errno++) errnoNumbers.set(errnoName(errno), errno);
  }
  const errno = errnoNumbers.get(name);
  return errno === undefined ? "failed" : (UNNAMED[errno]?.words ?? getSystemErrorMessage(-errno));
};
