import { closeSync } from "node:fs";
import { checked, libc } from "./libc.ts";

/** The same numbers on x86-64 and arm64 (include/uapi/asm-generic/unistd.h). */
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;

/**
 * A descriptor of another process as one of this process: the same open file, closed on exec, to be closed by the caller
 * (pidfd_getfd, Linux 5.6). Closing it does not close the other one.
 *
 * Needs what a debugger needs: the same user and, where Yama limits that, CAP_SYS_PTRACE or the other's consent. Fails with ESRCH when
 * there is no such process, EBADF when it has no such descriptor, EPERM when this one may not.
 */
export const borrowDescriptor = (pid: number, fd: number): number => {
  const pidfd = checked(Number(libc.syscall(SYS_PIDFD_OPEN, pid, 0, 0)), "pidfd_open", `/proc/${pid}`);
  try {
    return checked(Number(libc.syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)), "pidfd_getfd", `/proc/${pid}/fd/${fd}`);
  } finally {
    closeSync(pidfd);
  }
};
