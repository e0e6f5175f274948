import { HostError } from "./host-error.ts";
import { checked, lastErrno, libc } from "./libc.ts";

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const PR_SET_PDEATHSIG = 1;
const PR_SET_PTRACER = 0x59616d61;
const PR_SET_PTRACER_ANY = 2n ** 64n - 1n;

/** Who is at the other end of a unix socket: the process that connected or listened, as it was at that moment. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Credentials of the peer of a connected unix socket (SO_PEERCRED). The pid is 0 for a process that this pid namespace
 * does not show, such as one in another container.
 */
export const peerCredentials = (socketFd: number): PeerCredentials => {
  const value = new Int32Array(3);
  const length = new Uint32Array([value.byteLength]);
  checked(libc.getsockopt(socketFd, SOL_SOCKET, SO_PEERCRED, value, length), "getsockopt(SO_PEERCRED)");
  return { pid: value[0]!, uid: value[1]!, gid: value[2]! };
};

/**
 * Lets every process of the same user attach to this one (ptrace, pidfd_getfd), where the Yama security module would allow
 * it to parents only. False when this kernel has no Yama, and so no such limit.
 */
export const allowAnyTracer = (): boolean => {
  if (libc.prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) === 0) return true;
  const errno = lastErrno();
  if (errno === "EINVAL") return false;
  throw new HostError("prctl(PR_SET_PTRACER)", errno);
};

/**
 * Asks the kernel to send `signal` (a number) to this process when its parent ends. Returns false when the parent has
 * ended already, since then no signal will come. Trap: "parent" means the thread that started this process.
 */
export const signalOnParentDeath = (signal: number, parentPid: number): boolean => {
  checked(libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)");
  return process.ppid === parentPid;
};
