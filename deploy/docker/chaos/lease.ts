/** How the one that moves guests tells the killers of the hosts that they may kill: a file in each host's runtime directory, kept young. */
import { appendFileSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Without a fresh word for this long killers rest, ms: whoever gave it may be gone. */
const LEASE_MS = 5_000;
/** How often the word is given anew, ms. */
export const RENEW_MS = 1_000;

const leaseOf = (runtimeDirectory: string): string => join(runtimeDirectory, "chaos-lease");
const killsOf = (runtimeDirectory: string): string => join(runtimeDirectory, "chaos-kills");

export const renewLease = (runtimeDirectory: string): void => writeFileSync(leaseOf(runtimeDirectory), "");

export const isLeased = (runtimeDirectory: string): boolean =>
  Date.now() - (statSync(leaseOf(runtimeDirectory), { throwIfNoEntry: false })?.mtimeMs ?? 0) < LEASE_MS;

/** Writes down one that was killed. */
export const noteKill = (runtimeDirectory: string, pid: number): void =>
  appendFileSync(killsOf(runtimeDirectory), `${new Date().toISOString()} ${pid}\n`);

/** How many have been killed since the volume was made. */
export const countKills = (runtimeDirectory: string): number => {
  try {
    return readFileSync(killsOf(runtimeDirectory), "utf8").split("\n").length - 1;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw error;
  }
};
