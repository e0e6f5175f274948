/** Temporary directories that tell whether their owner still lives, so that the next one can put away what a kill -9 left. */
import { closeSync, lstatSync, mkdtempSync, openSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { tryLockFile } from "@godwit/host";

/** Locked for as long as the owner lives. Across containers, where a pid says nothing. */
const LOCK_NAME = "lock";

export interface ClaimedDirectory {
  readonly path: string;
  /** Removes what is in it, save the names given; with none of them the directory, too. */
  readonly remove: (kept: ReadonlyArray<string>) => void;
}

/** Makes `<root>/<prefix>XXXXXX`. Throws what the file system throws. */
export const claimDirectory = (root: string, prefix: string): ClaimedDirectory => {
  const path = mkdtempSync(join(root, prefix));
  const lock = openSync(join(path, LOCK_NAME), "wx", 0o600);
  tryLockFile(lock);
  return {
    path,
    remove: (kept) => {
      if (kept.length === 0) rmSync(path, { recursive: true, force: true });
      for (const name of kept.length === 0 ? [] : readdirSync(path)) {
        if (!kept.includes(name)) rmSync(join(path, name), { recursive: true, force: true });
      }
      closeSync(lock);
    },
  };
};

/** Our own directories of this kind whose owner is gone. One without a lock holds nothing but a log, or is being made. */
export const abandonedDirectories = (root: string, prefix: string): ReadonlyArray<string> =>
  readdirSync(root)
    .filter((name) => name.startsWith(prefix))
    .map((name) => join(root, name))
    .filter(isAbandoned);

const isAbandoned = (path: string): boolean => {
  try {
    if (lstatSync(path).uid !== process.getuid?.()) return false;
    const lock = openSync(join(path, LOCK_NAME), "r+");
    try {
      return tryLockFile(lock);
    } finally {
      closeSync(lock);
    }
  } catch {
    // No lock, no directory, or gone since it was listed: not ours to care for.
    return false;
  }
};
