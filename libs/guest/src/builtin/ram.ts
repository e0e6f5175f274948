/** The guest's memory: a file of this name alone, mapped into this process, and watched by userfaultfd where the host allows. */

import { closeSync, fstatSync, openSync, rmSync } from "node:fs";
import { allowAnyTracer, armOwnMemory, createRamFile, errnoOf, HostError, mapFile, tryLockFile } from "@godwit/host";
import { Refusal } from "./refusal.ts";

export interface Ram {
  readonly address: bigint;
  /** Whether writes are tracked by userfaultfd, and why not. */
  readonly userfaultfd: { readonly armed: true } | { readonly armed: false; readonly reason: string };
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
  return { address: mapping.address, userfaultfd: arm(mapping) };
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
    armOwnMemory([mapping]);
    return { armed: true };
  } catch (cause) {
    if (cause instanceof HostError) return { armed: false, reason: cause.message };
    throw cause;
  }
};
