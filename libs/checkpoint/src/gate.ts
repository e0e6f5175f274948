/**
 * The fence of workers that write where nobody can drop what is late: into a file at its place, or into a guest's memory. A worker reads
 * and writes within the gate of a round; once the round's producer has shut the gate, nobody is within and nobody comes in, however
 * long he slept before (R2, R7). The kernel keeps it: a lock that its holder's death gives back.
 */
import { closeSync, fstatSync, openSync, rmSync } from "node:fs";
import { tryLockFile, tryShareFile } from "@godwit/host";

export interface Gate {
  /** Shuts it for good, unless somebody is within. */
  readonly shut: () => boolean;
  /** Takes it away, whoever is within: for a file that nobody will use. */
  readonly abandon: () => void;
}

/** Makes the gate at `path`, where there must be none. Throws what the file system throws. */
export const openGate = (path: string): Gate => {
  const fd = openSync(path, "wx", 0o600);
  let isOpen = true;
  const abandon = (): void => {
    if (!isOpen) return;
    isOpen = false;
    // Unlinked before the lock is given back: whoever takes it then finds that it leads nowhere.
    rmSync(path, { force: true });
    closeSync(fd);
  };
  return {
    shut: () => {
      if (!isOpen || tryLockFile(fd)) {
        abandon();
        return true;
      }
      return false;
    },
    abandon,
  };
};

/** Enters; the result leaves again. Null when the gate is shut. */
export const enterGate = (path: string): (() => void) | null => {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  if (tryShareFile(fd) && fstatSync(fd).nlink > 0) return () => closeSync(fd);
  closeSync(fd);
  return null;
};
