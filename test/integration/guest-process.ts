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

/** The sockets of simulated VFIO devices whose processes live below a directory, found like guests. */
export const deviceSockets = (directory: string): ReadonlyArray<string> =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      const { device, socket } = specWords(Number(pid));
      return device !== undefined && socket?.startsWith(`${directory}/`) ? [socket] : [];
    });

/** What stands behind `--spec`: a guest has a name there, a device is one. */
const specWords = (pid: number): { readonly name?: string; readonly socket?: string; readonly device?: unknown } => {
  const words = commandLine(pid);
  const at = words.indexOf("--spec");
  if (at === -1) return {};
  try {
    return JSON.parse(words[at + 1] ?? "");
  } catch {
    // Another program's --spec.
    return {};
  }
};

const specOf = (pid: number): BuiltinSpec | null => {
  const { name, socket } = specWords(pid);
  return name === undefined || socket === undefined ? null : { driver: "builtin", name, socket, pid };
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
