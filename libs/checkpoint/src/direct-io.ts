import { closeSync, constants, openSync } from "node:fs";

/** Whether the file's file system reads and writes past the page cache; tmpfs, for one, does not. Throws what else it says. */
export const takesDirectIo = (path: string): boolean => {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_DIRECT));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EINVAL") return false;
    throw error;
  }
};
