/** The guest's memory: a file of this name alone, mapped into this process, and watched by userfaultfd where the host allows. */

import { closeSync, fstatSync, openSync, rmSync } from "node:fs";
import {
  allowAnyTracer,
  armOwnMemory,
  createRamFile,
  errnoOf,
  HostError,
  hostPageBytesOf,
  type MemoryRange,
  mapFile,
  openUserfaultfd,
  registerMissing,
  registerWriteProtect,
  tryLockFile,
  UFFD_FEATURES,
  unregister,
} from "@godwit/host";
import { Refusal } from "./refusal.ts";

export interface Ram {
  readonly address: bigint;
  /** The unit in which it is mapped, bytes. */
  readonly hostPageBytes: number;
  /** Whether writes are tracked by userfaultfd, and why not. */
  readonly userfaultfd:
    | { readonly armed: true; readonly fd: number }
    | { readonly armed: false; readonly reason: string };
  readonly pages: IncomingPages;
}

/**
 * Pages that come while the guest runs already: a vCPU that touches one which is not there waits in the kernel until somebody places it.
 *
 * This process holds the userfaultfd for as long as it lives. Who places pages only borrows it: when that one dies, its own copy is
 * closed and nothing happens; were it the last one, threads that wait would go on with zeros.
 */
export interface IncomingPages {
  /** The descriptor to borrow, while pages are missing; null when all are there. */
  readonly fd: () => number | null;
  /** From now on pages that are not there are waited for. Harmless when said again. Refuses with `not-supported` where the host cannot. */
  readonly listen: () => number;
  /** All pages are there: what is still missing is zeros, and no touch is waited for any more. */
  readonly end: () => void;
}

/** A leftover that is removed can be taken by another starter at once; after this many rounds it is no coincidence. */
const CLAIM_ATTEMPTS = 3;

/**
 * Creates the RAM file and maps it. The file's lock is this process's claim to the guest's name: it is held until the
 * process ends, however it ends, so a file that nobody has locked is the leftover of a killed guest and is replaced.
 */
export const createRam = (path: string, lengthBytes: number): Ram => {
  const fd = claimRamFile(path, lengthBytes);
  const mapping = mapFile(fd, { offsetBytes: 0, lengthBytes }, "writable");
  const userfaultfd = arm(mapping);
  const hostPageBytes = hostPageBytesOf(path);
  return { address: mapping.address, hostPageBytes, userfaultfd, pages: incomingPages(mapping, userfaultfd) };
};

const incomingPages = (memory: MemoryRange, tracking: Ram["userfaultfd"]): IncomingPages => {
  let listening: number | null = null;
  const listen = (): number => {
    // A range belongs to one userfaultfd only: where one tracks its writes already, the same one waits for its pages.
    const fd = tracking.armed ? tracking.fd : openUserfaultfd({ features: UFFD_FEATURES.THREAD_ID }).fd;
    registerMissing(fd, memory, tracking.armed ? "missing and written" : "missing");
    return fd;
  };
  return {
    fd: () => listening,
    listen: () => {
      try {
        listening ??= listen();
        return listening;
      } catch (cause) {
        if (cause instanceof HostError)
          throw new Refusal("not-supported", `this host cannot wait for missing pages: ${cause.message}`);
        throw cause;
      }
    },
    end: () => {
      if (listening === null) return;
      // The kernel gives up one mode of a range only together with the other. Nothing was tracked so far: a tracker is refused before.
      unregister(listening, memory);
      if (tracking.armed) registerWriteProtect(listening, memory.address, memory.lengthBytes);
      listening = null;
    },
  };
};

const claimRamFile = (path: string, lengthBytes: number): number => {
  for (let attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
    removeLeftover(path);
    try {
      const fd = createRamFile(path, lengthBytes);
      // Between its creation and its lock the file looks like a leftover: whoever took it for one has unlinked it.
      if (tryLockFile(fd) && fstatSync(fd).nlink > 0) return fd;
      closeSync(fd);
    } catch (cause) {
      if (errnoOf(cause) === "ENOSPC") throw new Refusal("no-space", (cause as Error).message);
      if (errnoOf(cause) !== "EEXIST") throw cause;
    }
  }
  throw new Refusal("guest-exists", `${path} belongs to a guest that is starting right now`);
};

/** Removes the RAM file of a guest that was killed, if there is one. Refuses with `guest-exists` while its process lives. */
export const removeLeftover = (path: string): void => {
  let fd: number;
  try {
    fd = openSync(path, "r+");
  } catch (cause) {
    if (errnoOf(cause) === "ENOENT") return;
    throw cause;
  }
  try {
    if (!tryLockFile(fd)) throw new Refusal("guest-exists", `${path} belongs to a guest that is running`);
    rmSync(path, { force: true });
  } finally {
    closeSync(fd);
  }
};

const arm = (mapping: { readonly address: bigint; readonly lengthBytes: number }): Ram["userfaultfd"] => {
  try {
    // Agents of the same user read this process's page map; without Yama there is nothing to allow.
    allowAnyTracer();
    // Never closed: tracking ends with the process.
    const { fd } = armOwnMemory([mapping]);
    return { armed: true, fd };
  } catch (cause) {
    if (cause instanceof HostError) return { armed: false, reason: cause.message };
    throw cause;
  }
};
