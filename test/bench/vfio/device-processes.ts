/** What the processes of simulated devices have used. They end with their guest, so they are read while they live. */
import { readdirSync, readFileSync } from "node:fs";
import { cpuSeconds } from "../process-usage.ts";

/** The directory of a node's guests stands in their command lines, and so does the socket of a device. */
const isDeviceIn = (directory: string, pid: string): boolean => {
  try {
    const line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
    return line.includes(`${directory}/`) && line.includes(".device.sock");
  } catch {
    // It has ended since it was listed.
    return false;
  }
};

/** User and system time of all devices below a directory that live now, s. */
export const deviceSeconds = (directory: string): number =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && isDeviceIn(directory, name))
    .reduce((sum, pid) => sum + secondsOf(Number(pid)), 0);

const secondsOf = (pid: number): number => {
  try {
    return cpuSeconds(pid);
  } catch {
    return 0;
  }
};
