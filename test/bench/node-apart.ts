/** Node b of a testbed elsewhere on this machine: a process of its own supervises its actors. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { childrenOf } from "./process-usage.ts";

/** Where it is. */
export interface Apart {
  /** What a command line begins with to run there. */
  readonly enter: ReadonlyArray<string>;
  /** Where both nodes find NATS. */
  readonly natsUrl: string;
}

/** What its process is told, in JSON. */
export interface NodeSettings {
  readonly directory: string;
  readonly guestDirectory: string;
  readonly workers: number;
  readonly natsUrl: string;
}

/** The pid of the supervisor; it ends with the scope, and its actors with it. */
export const startNodeApart = (
  enter: ReadonlyArray<string>,
  settings: NodeSettings,
): Effect.Effect<number, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [execPath = process.execPath, ...execArgv] = [...enter, process.execPath];
      const program = fileURLToPath(new URL("./node-apart-process.ts", import.meta.url));
      return fork(program, [JSON.stringify(settings)], { execPath, execArgv });
    }),
    (child) =>
      Effect.promise(async () => {
        const gone = once(child, "exit");
        if (child.kill("SIGTERM")) await gone;
      }),
  ).pipe(Effect.map(({ pid }) => pid ?? 0));

/** The actor under that supervisor. Throws when there is none. */
export const actorOf = (supervisor: number, role: string, id: string): number => {
  const found = childrenOf(supervisor).find((pid) => {
    const environment = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
    return (
      readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`/${role}/`) && environment.includes(`GODWIT_WORKER=${id}`)
    );
  });
  if (found === undefined) throw new Error(`there is no ${role} ${id} under process ${supervisor}`);
  return found;
};
