/** Names of what is not a checkpoint yet, or not any more: files beside it that no operator could have named. */
import { closeSync, type Dirent, openSync, readdirSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { tryLockFile } from "@godwit/host";

const SUFFIX = ".partial";

/** A file that is being written, or was when its writer died, lies beside its place under this name. */
export const partialPath = (path: string, id: string): string =>
  join(dirname(path), `.${basename(path)}.${id}${SUFFIX}`);

/** Where an object's checkpoint lies on its way into a store, or out of one: no name that an operator could give. */
export const asidePath = (folder: string, name: string, id: string): string =>
  join(folder, `.${name}.${id}.object${SUFFIX}`);

/** Whether a directory's entry may be a file that a dead writer left. */
const isPartial = (name: string): boolean => name.startsWith(".") && name.endsWith(SUFFIX);

/** Whether the writer of such a file is gone, for sure: what cannot be opened or locked may be somebody's. */
export const isDeserted = (path: string): boolean => {
  let fd: number;
  try {
    // A network file system locks only what may be written.
    fd = openSync(path, "r+");
  } catch {
    return false;
  }
  try {
    return tryLockFile(fd);
  } catch {
    return false;
  } finally {
    closeSync(fd);
  }
};

/** Removes what dead writers left in `folder` and deeper. What cannot be looked at stays: it may be somebody's. */
export const removeDeserted = (folder: string): void => {
  let entries: ReadonlyArray<Dirent>;
  try {
    entries = readdirSync(folder, { withFileTypes: true });
  } catch {
    // No such folder, or not ours: nothing was left there.
    return;
  }
  for (const entry of entries) {
    const path = join(folder, entry.name);
    // Never through a link: what it leads to is not in the folder.
    if (entry.isDirectory()) removeDeserted(path);
    else if (entry.isFile() && isPartial(entry.name) && isDeserted(path)) rmSync(path, { force: true });
  }
};
