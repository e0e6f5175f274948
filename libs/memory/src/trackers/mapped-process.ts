import { HostError, identifyFile, mapsFileAt, readStat } from "@godwit/host";
import type { TrackedProcess } from "../dirty-tracker.ts";

/** A process that is known to map its blocks where it is said to. */
export interface MappedProcess {
  /**
   * Fails with ESRCH when the process has ended, or does not map a block at its address any more. To be called after a
   * scan, because a scan of memory that is gone finds nothing and succeeds: silence must not pass for "clean".
   */
  readonly check: () => void;
}

/** Notes who the process is, and makes sure that it maps each block's file at the block's address. */
export const openMappedProcess = ({ pid, blocks }: TrackedProcess): MappedProcess => {
  const { startTicks } = readStat(pid);
  // The files are identified now: their names may be gone later, while the guest lives on.
  const files = blocks.map((block) => identifyFile(block.path));
  const check = () => {
    if (readStat(pid).startTicks !== startTicks) {
      throw new HostError("check", "ESRCH", { path: `/proc/${pid}`, detail: "the guest's process has ended" });
    }
    blocks.forEach((block, index) => {
      if (mapsFileAt(pid, files[index]!, block)) return;
      throw new HostError("check", "ESRCH", {
        path: `/proc/${pid}/maps`,
        detail: `the guest's process does not map block ${block.name} (${block.path}) at 0x${block.address.toString(16)}`,
      });
    });
  };
  check();
  return { check };
};
