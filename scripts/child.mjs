// How a process that only stands before another one ends: not before it, and with its exit code.
// Plain JavaScript for any Node >= 18, without dependencies.
import { constants } from "node:os";

const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP"];

/**
 * Waits for `child` and resolves to its exit code, 128 + n when signal n ended it. Rejects when it could not be started.
 *
 * Each signal of FORWARDED that reaches us meanwhile is passed on once, and never ends us: the child cleans up. Trap: Ctrl-C
 * reaches the child from the terminal as well, and npm passes signals on too, so a child may see one signal several times.
 */
export function exitOf(child) {
  const forwarded = new Set();
  const forward = (signal) => {
    if (forwarded.has(signal)) return;
    forwarded.add(signal);
    child.kill(signal);
  };
  for (const signal of FORWARDED) process.on(signal, forward);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve(code ?? 128 + constants.signals[signal]));
  }).finally(() => {
    for (const signal of FORWARDED) process.off(signal, forward);
  });
}
