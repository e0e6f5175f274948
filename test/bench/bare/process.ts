/** Processes of the yardsticks: plain nats.js, and nothing of godwit. */
import { fork } from "node:child_process";
import { once } from "node:events";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

/** Starts a process and waits until it is ready; succeeds with its pid. */
export const startBare = (file: string, args: ReadonlyArray<string>): Effect.Effect<number, unknown, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = fork(new URL(file, import.meta.url), args);
      await once(child, "message");
      return child;
    }),
    (child) =>
      Effect.promise(async () => {
        const gone = once(child, "exit");
        // False for one that has ended already: a signal to all processes of the bench may have come first.
        if (child.kill("SIGKILL")) await gone;
      }),
  ).pipe(Effect.map((child) => child.pid ?? 0));
