/** The builtin guests that live below a directory, found by their processes: registries say what should be, these are what is. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import type { BuiltinSpec } from "@godwit/guest";

export interface GuestProcess {
  readonly node: string;
  readonly spec: BuiltinSpec;
}

/** Guests keep their files in `<directory>/<node>/`; no two tests share a directory, so nobody else's guest is ever found. */
export const guestProcesses = (directory: string): ReadonlyArray<GuestProcess> =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      const spec = specOf(Number(pid));
      return spec?.socket.startsWith(`${directory}/`) ? [{ node: basename(dirname(spec.socket)), spec }] : [];
    });

const specOf = (pid: number): BuiltinSpec | null => {
  const words = commandLine(pid);
  const at = words.indexOf("--spec");
  if (at === -1) return null;
  try {
    const { name, socket } = JSON.parse(words[at + 1] ?? "") as { readonly name: string; readonly socket: string };
    return { driver: "builtin", name, socket, pid };
  } catch {
    // Another program's --spec.
    return null;
  }
};

/** Empty for a process that has ended, a zombie included. */
export const commandLine = (pid: number): ReadonlyArray<string> => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
};

/** True as long as the process is there and has not been killed. */
export const isAlive = (pid: number): boolean => commandLine(pid).join("") !== "";
