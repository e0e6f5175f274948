/** What processes have used so far, as the kernel counts it. Linux only. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

/** USER_HZ, the unit of times in /proc; 100 on every architecture that godwit runs on. */
const TICKS_PER_SECOND = 100;
const KIB = 1024;
/** For /proc/PID/clear_refs: forget the peak of resident memory. */
const RESET_PEAK = "5";

/** The fields of /proc/PID/stat from the third on: the second, a name in parentheses, may hold anything. */
const statFields = (pid: number): ReadonlyArray<string> => {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
};

/** User and system time of all threads of a process, s. Throws when there is no such process. */
export const cpuSeconds = (pid: number): number => {
  const fields = statFields(pid);
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
};

/** The child of this process that runs that program. Throws when there is none. */
export const childRunning = (program: string): number => {
  const found = childrenOf(process.pid).find((pid) => readFileSync(`/proc/${pid}/comm`, "utf8").trim() === program);
  if (found === undefined) throw new Error(`no child of this process runs ${program}`);
  return found;
};

export const childrenOf = (parent: number): ReadonlyArray<number> =>
  readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && isChild(pid, parent));

const isChild = (pid: number, parent: number): boolean => {
  try {
    return Number(statFields(pid)[1]) === parent;
  } catch {
    // It has ended meanwhile.
    return false;
  }
};

/** User and system time of a process without that of its threads of those names (of which the kernel keeps 15 characters), s. */
export const cpuSecondsWithout = (pid: number, isLeftOut: (thread: string) => boolean): number => {
  let ticks = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8");
    if (!isLeftOut(stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")")))) continue;
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return cpuSeconds(pid) - ticks / TICKS_PER_SECOND;
};

const statusBytes = (pid: number, field: string): number => {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  if (found === null) throw new Error(`/proc/${pid}/status has no ${field}`);
  return Number(found[1]) * KIB;
};

/** The most memory a process had resident since its start or the last `forgetPeak`, bytes. */
export const peakBytes = (pid: number): number => statusBytes(pid, "VmHWM");

/** Resident memory now, bytes: anonymous, and of files and shared mappings. */
export const residentBytes = (pid: number): number => statusBytes(pid, "VmRSS");

/** Lets the peak begin anew at what is resident now. */
export const forgetPeak = (pid: number): void => writeFileSync(`/proc/${pid}/clear_refs`, RESET_PEAK);

export const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};
