import { getSystemErrorMessage, getSystemErrorName } from "node:util";

/**
 * A system call or a file of /proc failed.
 *
 * - `operation`: the call, in the kernel's own words ("mmap", "ioctl(PAGEMAP_SCAN)")
 * - `errno`: its name ("ENOSPC"); tests and callers compare this, never the text
 * - `path`: the file it was about, where there is one
 * - `detail`: what the errno alone does not say, where there is something
 */
export class HostError extends Error {
  override readonly name = "HostError";
  readonly operation: string;
  readonly errno: string;
  readonly path: string | undefined;
  readonly detail: string | undefined;

  constructor(operation: string, errno: string, about: { readonly path?: string; readonly detail?: string } = {}) {
    const where = about.path === undefined ? "" : ` ${about.path}`;
    super(`${operation}${where}: ${about.detail ?? describeErrno(errno)} (${errno})`);
    this.operation = operation;
    this.errno = errno;
    this.path = about.path;
    this.detail = about.detail;
  }
}

/** Name of an errno number, "ENOSPC" for 28. Where the headers have two names it is the one that Node gives: ENOTSUP, EAGAIN. */
export const errnoName = (errno: number): string => getSystemErrorName(-errno);

/** The errno name of whatever a `node:fs` call threw, or of a HostError; "UNKNOWN" for anything else. */
export const errnoOf = (error: unknown): string => {
  if (error instanceof HostError) return error.errno;
  const code = (error as { readonly code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "UNKNOWN";
};

const errnoNumbers = new Map<string, number>();
const describeErrno = (name: string): string => {
  if (errnoNumbers.size === 0) {
    // 133 is EHWPOISON, the last errno that Linux defines on x86-64 and arm64.
    for (let errno = 1; errno <= 133; errno++) errnoNumbers.set(errnoName(errno), errno);
  }
  const errno = errnoNumbers.get(name);
  return errno === undefined ? "failed" : getSystemErrorMessage(-errno);
};
