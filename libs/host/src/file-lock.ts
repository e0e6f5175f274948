import { HostError } from "./host-error.ts";
import { lastErrno, libc } from "./libc.ts";

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Takes the exclusive lock of an open file without waiting; false when somebody else holds it. The kernel lets go of it
 * when the last descriptor of this opening is closed, also when the holder is killed: so it tells whether a file's owner lives,
 * across containers, where a pid does not.
 */
export const tryLockFile = (fd: number): boolean => tryFlock(fd, LOCK_EX);

/** The same for a lock that any number may hold side by side, while nobody holds the exclusive one. */
export const tryShareFile = (fd: number): boolean => tryFlock(fd, LOCK_SH);

const tryFlock = (fd: number, kind: number): boolean => {
  if (libc.flock(fd, kind | LOCK_NB) === 0) return true;
  const errno = lastErrno();
  if (errno === "EAGAIN") return false;
  throw new HostError("flock", errno);
};
