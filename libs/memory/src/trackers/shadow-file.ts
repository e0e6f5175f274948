import { closeSync, openSync, readdirSync, renameSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { createRamFile, errnoOf, tryLockFile } from "@godwit/host";

const PREFIX = "godwit-shadow-";
/** What a file is called until its lock is held, so that nobody takes it for one left behind. */
const NEW_PREFIX = "godwit-new-shadow-";

/** A sparse file that lives no longer than its owner. */
export interface ShadowFile {
  readonly path: string;
  readonly remove: () => void;
}

/**
 * Creates a shadow file, held by a lock for as long as this process lives. Other processes may open it by its path.
 * Fails with ENOSPC when the file system has no room for all of it.
 */
export const createShadowFile = (directory: string, lengthBytes: number): ShadowFile => {
  const id = crypto.randomUUID();
  const newPath = join(directory, `${NEW_PREFIX}${id}`);
  const path = join(directory, `${PREFIX}${id}`);
  const fd = createRamFile(newPath, lengthBytes);
  // Nobody else knows the name yet, so the lock is free.
  tryLockFile(fd);
  renameSync(newPath, path);
  const remove = () => {
    unlinkSync(path);
    closeSync(fd);
  };
  return { path, remove };
};

/** Removes shadow files whose owner was killed before it could. Returns how many there were. */
export const sweepShadowFiles = (directory: string): number => {
  let swept = 0;
  for (const name of readdirSync(directory)) {
    if (name.startsWith(PREFIX) && sweep(join(directory, name))) swept++;
  }
  return swept;
};

const sweep = (path: string): boolean => {
  try {
    const fd = openSync(path, "r");
    try {
      if (!tryLockFile(fd)) return false;
      unlinkSync(path);
      return true;
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    // Another user's file, or one that its owner removed just now: neither is ours to care for.
    if (["EACCES", "EPERM", "ENOENT"].includes(errnoOf(error))) return false;
    throw error;
  }
};
