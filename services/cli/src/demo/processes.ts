/**
 * Processes that may outlive whoever tried something out: builtin guests and QEMUs always do, actors and a NATS server do when it was
 * killed. They are found by the directory that their work lies in, and ended by pid.
 */
import { readdirSync, readFileSync } from "node:fs";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";

/** How long they may take to end by themselves, ms; then they are killed. Giving back a few GiB of memory takes less than a second. */
const END_MS = 5000;
const LOOK_AGAIN = Schedule.spaced("20 millis");

const contentOf = (path: string): string => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // It has ended since it was listed, or is another user's.
    return "";
  }
};

/** Whether a process works in `directory`: not one that merely names it, such as a `tail -f` of the log. */
const worksIn = (directory: string, pid: number): boolean => {
  const words = contentOf(`/proc/${pid}/cmdline`).split("\0");
  return (
    // A builtin guest, also one that no registry names, since its loader was killed while it started it.
    words.some((word) => word.includes(`"socket":${JSON.stringify(`${directory}/`).slice(0, -1)}`)) ||
    words.some((word) => word.startsWith(`unix:${directory}/`)) ||
    words.includes(`${directory}/nats/nats-server.conf`) ||
    contentOf(`/proc/${pid}/environ`)
      .split("\0")
      .some((variable) => variable.startsWith(`GODWIT_RUNTIME_DIR=${directory}/`))
  );
};

const processesIn = (directory: string): ReadonlyArray<number> =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && worksIn(directory, pid));

const signal = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended since it was listed.
  }
};

/** Ends them and returns once they are gone, or cannot be ended. */
export const endProcessesIn = (directory: string): Effect.Effect<void> =>
  Effect.gen(function* () {
    const gone = Effect.sync(() => processesIn(directory).length === 0).pipe(
      Effect.repeat({ until: (none) => none, schedule: LOOK_AGAIN }),
      Effect.timeoutOption(END_MS),
    );
    for (const pid of processesIn(directory)) signal(pid, "SIGTERM");
    yield* gone;
    for (const pid of processesIn(directory)) signal(pid, "SIGKILL");
    yield* gone;
  });
