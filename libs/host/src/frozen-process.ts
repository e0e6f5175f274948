import { type ChildProcess, spawn } from "node:child_process";
import { errnoOf, HostError } from "./host-error.ts";
import { type ProcessStat, readThreadStats } from "./process-state.ts";

/**
 * Longest wait for all threads of a process to stop, ms. A thread stops when it leaves the kernel, normally within
 * microseconds; one that waits for a disk takes as long as the disk. Beyond a second the guest's users would notice more
 * than the tracker is worth.
 */
export const FREEZE_MS_MAX = 1000;

/** Stops and continues one process, and sees to it that the process goes on when this one is killed in between. */
export interface Freezer {
  /**
   * Runs `body` while no thread of the process runs, and lets the process go on afterwards, unless it was stopped before.
   * Both are synchronous, so that nothing else of this process makes the pause longer. Returns body's result.
   * Fails with ETIMEDOUT, naming the thread, when one does not stop within FREEZE_MS_MAX (kernel threads never do).
   */
  readonly whileFrozen: <A>(body: () => A) => A;
  readonly close: () => void;
}

/** Continues the process when the pipe ends while the last word was "frozen": the writer was killed in the middle. */
const GUARD = 'state=free; while read -r line; do state=$line; done; [ "$state" = frozen ] && kill -CONT "$1"; exit 0';

/**
 * Makes a freezer for a process of the same user. Starts one shell as guard, which sleeps on a pipe.
 * Trap: the parent of the frozen process gets SIGCHLD for each stop, if it asked for that.
 */
export const openFreezer = (pid: number): Freezer => {
  // A session of its own: what ends this process (an interrupt typed at the terminal) must not end its guard as well.
  const guard = spawn("/bin/sh", ["-c", GUARD, "godwit-guard", String(pid)], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  // A guard that cannot start or ends early only loses the protection against being killed; the next word to it fails loudly.
  let lost: Error | null = null;
  const lose = (error: Error) => {
    lost = error;
  };
  guard.on("error", lose);
  guard.stdin.on("error", lose);
  guard.unref();
  (guard.stdin as unknown as { unref(): void }).unref();

  const whileFrozen = <A>(body: () => A): A => {
    if (lost !== null)
      throw new HostError("guard", errnoOf(lost), { detail: "the guard of the frozen process has ended" });
    if (readThreadStats(pid).every(isStopped)) return body();
    tell(guard, "frozen");
    try {
      signal(pid, "SIGSTOP");
      waitUntilStopped(pid);
      return body();
    } finally {
      signal(pid, "SIGCONT");
      tell(guard, "free");
    }
  };
  return { whileFrozen, close: () => guard.stdin.end() };
};

/** Small writes to an empty pipe are handed to the kernel before `write` returns. */
const tell = (guard: ChildProcess, word: "frozen" | "free"): void => {
  guard.stdin!.write(`${word}\n`);
};

/** Stopped (T), stopped by a tracer (t), or ended (Z, X): not able to write to memory. */
const isStopped = (thread: ProcessStat): boolean => "TtZX".includes(thread.state);

const waitUntilStopped = (pid: number): void => {
  const deadline = performance.now() + FREEZE_MS_MAX;
  for (;;) {
    const running = readThreadStats(pid).find((thread) => !isStopped(thread));
    if (running === undefined) return;
    if (performance.now() > deadline) {
      throw new HostError("SIGSTOP", "ETIMEDOUT", {
        path: `/proc/${pid}`,
        detail: `thread "${running.name}" is still in state ${running.state} after ${FREEZE_MS_MAX} ms`,
      });
    }
  }
};

const signal = (pid: number, name: "SIGSTOP" | "SIGCONT"): void => {
  try {
    process.kill(pid, name);
  } catch (error) {
    throw new HostError(name, errnoOf(error), { path: `/proc/${pid}` });
  }
};
