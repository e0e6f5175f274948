import { readdirSync, readFileSync } from "node:fs";
import { errnoOf, HostError } from "./host-error.ts";

/** What /proc/PID/stat says of a process or thread. */
export interface ProcessStat {
  /** The command's name, up to 15 characters. */
  readonly name: string;
  /** One letter: R running, S sleeping, D in the kernel, T stopped, t traced, Z ended. */
  readonly state: string;
  /** Clock ticks from the start of the system to that of the process: with the pid, this names a process for good. */
  readonly startTicks: number;
}

/** Parses one line of a stat file. The name is in parentheses and may hold spaces and parentheses itself. */
export const parseStat = (text: string): ProcessStat => {
  const nameEnd = text.lastIndexOf(")");
  const fields = text.slice(nameEnd + 2).split(" ");
  // Field 3 of the file is the first one behind the name; the start time is field 22.
  return { name: text.slice(text.indexOf("(") + 1, nameEnd), state: fields[0]!, startTicks: Number(fields[19]) };
};

/** State of a process. Fails with ENOENT when there is none with this pid. */
export const readStat = (pid: number): ProcessStat => readStatFile(`/proc/${pid}/stat`);

/** States of all threads of a process. One that ends meanwhile is left out. Fails with ENOENT when there is no such process. */
export const readThreadStats = (pid: number): ReadonlyArray<ProcessStat> => {
  const path = `/proc/${pid}/task`;
  let threads: string[];
  try {
    threads = readdirSync(path);
  } catch (error) {
    throw new HostError("read", errnoOf(error), { path });
  }
  return threads.flatMap((thread) => {
    try {
      return [readStatFile(`${path}/${thread}/stat`)];
    } catch (error) {
      // ENOENT and ESRCH: the thread ended after it was listed.
      if (["ENOENT", "ESRCH"].includes(errnoOf(error))) return [];
      throw error;
    }
  });
};

const readStatFile = (path: string): ProcessStat => {
  try {
    return parseStat(readFileSync(path, "utf8"));
  } catch (error) {
    throw new HostError("read", errnoOf(error), { path });
  }
};
