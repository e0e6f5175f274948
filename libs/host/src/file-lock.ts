import { HostError } from "./host-error.ts";
import { lastErrno, libc } from "./libc.ts";

const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Takes the exclusive lock of an open file without waiting; false when somebody else holds it. The kernel lets go of it
 * when the last descriptor of this opening is closed, also when the holder is killed: so it tells whether a file's owner lives,
 * across containers, where a pid does not.
 */
export const tryLockFile = (fd: number): boolean => {
  if (libc.flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  const errno = lastErrno();
  if (errno === "EAGAIN") return false;
  throw new HostError("flock", errno);
};
