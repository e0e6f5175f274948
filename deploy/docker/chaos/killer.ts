// Kills multifd workers of one host at random, as a crash does, while somebody keeps the lease. It sees them because it shares the
// host's process ids, and may because it is the same user; the container engine starts them again. It kills no faster than they come back: a
// worker is a victim only while it and another one are at work.
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as after } from "node:timers/promises";
import { healthSocket } from "@godwit/protocol/health";
import { askHealth } from "../../../services/cli/src/host/health-question.ts";
import { isLeased, noteKill } from "./lease.ts";

/** Between two kills, ms; drawn evenly. */
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 2_500;
/** How long a worker has lived that may be killed, ms: for one that dies within 10 s Docker waits longer each time, up to a minute. */
const LIFE_MS_MIN = 11_000;
/** How often the workers are looked at, ms. */
const LOOK_MS = 100;

const wordsOf = (pid: string | number, file: "cmdline" | "environ"): ReadonlyArray<string> => {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8").split("\0");
  } catch {
    // It has ended since it was listed.
    return [];
  }
};

const workers = (): ReadonlyArray<number> =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      const words = wordsOf(pid, "cmdline");
      const at = words.indexOf("actor");
      return at > 0 && words[at - 1]?.endsWith("/main.ts") === true && words[at + 1] === "multifd-worker";
    })
    .map(Number);

const runtimeDirectory = process.env["GODWIT_RUNTIME_DIR"];
if (runtimeDirectory === undefined) throw new Error("GODWIT_RUNTIME_DIR is not set");
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => process.exit(0));

/** Whether the worker says that it can do its job. */
const isAtWork = (pid: number): Promise<boolean> => {
  const id =
    wordsOf(pid, "environ")
      .find((word) => word.startsWith("GODWIT_WORKER="))
      ?.split("=")[1] ?? "0";
  return askHealth(healthSocket(runtimeDirectory, "multifd-worker", id)).then(
    ({ healthy }) => healthy,
    () => false,
  );
};

const seenAt = new Map<number, number>();
let killAt = Date.now();

while (true) {
  await after(LOOK_MS);
  const now = Date.now();
  const living = workers();
  for (const pid of seenAt.keys()) if (!living.includes(pid)) seenAt.delete(pid);
  for (const pid of living) if (!seenAt.has(pid)) seenAt.set(pid, now);
  if (now < killAt || !isLeased(runtimeDirectory)) continue;
  const states = await Promise.all(living.map(isAtWork));
  const working = living.filter((_, at) => states[at]);
  const old = working.filter((pid) => now - (seenAt.get(pid) ?? now) >= LIFE_MS_MIN);
  const victim = old[Math.floor(Math.random() * old.length)];
  if (victim === undefined || working.length < 2) continue;
  killAt = now + PAUSE_MS_MIN + Math.random() * (PAUSE_MS_MAX - PAUSE_MS_MIN);
  try {
    process.kill(victim, "SIGKILL");
    noteKill(runtimeDirectory, victim);
  } catch (error) {
    // It was gone already.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
