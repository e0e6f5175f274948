/** Builtin guests are processes of their own that outlive whoever started them: who tried them out must also end them. */
import { readdirSync, readFileSync } from "node:fs";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";

/** How long a guest may take to end by itself, ms; then it is killed. Giving back a few GiB of memory takes less than a second. */
const END_MS = 5000;
const LOOK_AGAIN = Schedule.spaced("20 millis");

/**
 * Pids of the guests whose files lie below `directory`, also of one that no registry names, such as a destination that was being
 * started when its loader was killed.
 */
const guestsBelow = (directory: string): ReadonlyArray<number> =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(
          `"socket":${JSON.stringify(`${directory}/`).slice(0, -1)}`,
        );
      } catch {
        // It has ended since it was listed.
        return false;
      }
    });

const signal = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended since it was listed.
  }
};

/** Ends them and returns once they are gone, or cannot be ended. */
export const endGuestsBelow = (directory: string): Effect.Effect<void> =>
  Effect.gen(function* () {
    const gone = Effect.sync(() => guestsBelow(directory).length === 0).pipe(
      Effect.repeat({ until: (none) => none, schedule: LOOK_AGAIN }),
      Effect.timeoutOption(END_MS),
    );
    for (const pid of guestsBelow(directory)) signal(pid, "SIGTERM");
    yield* gone;
    for (const pid of guestsBelow(directory)) signal(pid, "SIGKILL");
    yield* gone;
  });
