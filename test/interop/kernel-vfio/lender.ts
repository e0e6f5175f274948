/** Another process that has devices open, for the provider to borrow them from: as `PID:FD`. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

export type LendingRequest =
  | { readonly _tag: "Open"; readonly device: string }
  | { readonly _tag: "Close"; readonly descriptor: number };
export type LendingAnswer =
  | { readonly _tag: "Done"; readonly descriptor: number }
  | { readonly _tag: "Failed"; readonly reason: string };

export interface Lender {
  /** Opens a device there; `PID:FD` names it as long as the scope lasts. Asked one after another. */
  readonly lend: (device: string) => Effect.Effect<string, unknown, Scope.Scope>;
  readonly stop: () => void;
}

export const startLender = (): Lender => {
  const child = fork(fileURLToPath(new URL("lending-process.ts", import.meta.url)));
  const ended = once(child, "exit").then(() => Promise.reject(new Error("the lending process has ended")));
  // It ends in the end, when nobody asks any more.
  ended.catch(() => {});
  const ask = async (request: LendingRequest): Promise<number> => {
    const answered = once(child, "message");
    child.send(request);
    const [answer] = (await Promise.race([answered, ended])) as [LendingAnswer];
    if (answer._tag === "Failed") throw new Error(answer.reason);
    return answer.descriptor;
  };
  const lend = (device: string) =>
    Effect.acquireRelease(
      Effect.tryPromise(() => ask({ _tag: "Open", device })),
      (descriptor) => Effect.promise(() => ask({ _tag: "Close", descriptor })),
    ).pipe(Effect.map((descriptor) => `${child.pid}:${descriptor}`));
  return { lend, stop: () => child.kill("SIGKILL") };
};
