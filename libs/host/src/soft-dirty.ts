import { writeFileSync } from "node:fs";
import { errnoOf, HostError } from "./host-error.ts";

/** What clear_refs takes for "clear the soft-dirty bits and write-protect everything". */
const CLEAR_SOFT_DIRTY = "4";

/**
 * Clears the soft-dirty bits of all memory of a process. Trap: on a kernel without CONFIG_MEM_SOFT_DIRTY this succeeds and
 * does nothing; `probeSoftDirty` finds out.
 */
export const clearSoftDirty = (pid: number): void => {
  const path = `/proc/${pid}/clear_refs`;
  try {
    writeFileSync(path, CLEAR_SOFT_DIRTY);
  } catch (error) {
    throw new HostError("write", errnoOf(error), { path });
  }
};
