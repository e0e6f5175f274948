/** The directories of something that is tried out on this machine. They go with the scope, and the guests in them. */
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GodwitError } from "@godwit/protocol";
import * as Telemetry from "@godwit/telemetry";
import * as Effect from "effect/Effect";
import type * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import { endGuestsBelow } from "./guest-processes.ts";

const LOG_NAME = "godwit.log";

export interface Stage {
  /** For everything but guest memory. */
  readonly directory: string;
  /** For guest memory: on a tmpfs. */
  readonly guestDirectory: string;
  readonly logFile: string;
  /** This process's own log lines, in that file. */
  readonly log: Layer.Layer<never>;
  /** Leaves the log file where it is; the rest goes all the same. */
  readonly keepLog: () => void;
}

const refuse = (cause: unknown): GodwitError =>
  new GodwitError({
    code: "no-space",
    actor: "cli",
    step: "make the directories",
    reason: cause instanceof Error ? cause.message : String(cause),
  });

/** `name` stands in the paths, with our pid, so that an operator knows whose they are. */
export const openStage = (name: string, guestRoot: string): Effect.Effect<Stage, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    let keep = false;
    const make = (root: string, release: (path: string) => Effect.Effect<void>) =>
      Effect.acquireRelease(
        Effect.try({ try: () => mkdtempSync(join(root, `godwit-${name}-${process.pid}-`)), catch: refuse }),
        release,
      );
    const directory = yield* make(tmpdir(), (path) => Effect.sync(() => removeBut(path, keep ? [LOG_NAME] : [])));
    const guestDirectory = yield* make(guestRoot, (path) =>
      Effect.andThen(
        endGuestsBelow(path),
        Effect.sync(() => removeBut(path, [])),
      ),
    );
    const logFile = join(directory, LOG_NAME);
    const log = yield* Effect.acquireRelease(
      Effect.try({ try: () => openSync(logFile, "a", 0o600), catch: refuse }),
      (fd) => Effect.sync(() => closeSync(fd)),
    );
    return {
      directory,
      guestDirectory,
      logFile,
      log: Telemetry.layer({
        actor: name,
        node: "local",
        format: "json",
        destination: { write: (line) => void writeSync(log, line) },
      }),
      keepLog: () => {
        keep = true;
      },
    };
  });

const removeBut = (directory: string, kept: ReadonlyArray<string>): void => {
  if (kept.length === 0) return rmSync(directory, { recursive: true, force: true });
  for (const name of readdirSync(directory)) {
    if (!kept.includes(name)) rmSync(join(directory, name), { recursive: true, force: true });
  }
};
