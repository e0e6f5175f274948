/** The directories of something that is tried out on this machine. They go with the scope, and the guests in them. */
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GodwitError } from "@godwit/protocol";
import * as Telemetry from "@godwit/telemetry";
import * as Effect from "effect/Effect";
import type * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import type { Outcome } from "../arguments/command.ts";
import type { Report } from "../reporting/report.ts";
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
  /** The same, and says where it is. */
  readonly showLog: (report: Report) => void;
}

const refuse = (cause: unknown): GodwitError =>
  new GodwitError({
    code: "no-space",
    actor: "cli",
    step: "make the directories",
    reason: cause instanceof Error ? cause.message : String(cause),
  });

/** `name` stands in the paths, with our pid, so that an operator knows whose they are. */
const openStage = (name: string, guestRoot: string): Effect.Effect<Stage, GodwitError, Scope.Scope> =>
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
    const keepLog = (): void => {
      keep = true;
    };
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
      keepLog,
      showLog: (report) => {
        keepLog();
        report.note(`the log of all actors: ${logFile}`);
      },
    };
  });

/**
 * Runs something on a stage of its own. What it answers is shown before everything is stopped, which takes a moment; when it fails,
 * the log file stays, and is named.
 */
export const onStage = (
  options: { readonly name: string; readonly guestRoot: string; readonly keepLog: boolean },
  report: Report,
  work: (stage: Stage) => Effect.Effect<Outcome, GodwitError, Scope.Scope>,
): Effect.Effect<Outcome, GodwitError> =>
  Effect.gen(function* () {
    const stage = yield* openStage(options.name, options.guestRoot);
    if (options.keepLog) stage.keepLog();
    const outcome = yield* work(stage).pipe(
      Effect.provide(stage.log),
      Effect.tapError(() => Effect.sync(() => stage.showLog(report))),
    );
    if (outcome.failure !== undefined) stage.showLog(report);
    report.answer(outcome.document, outcome.text);
    return outcome;
  }).pipe(Effect.scoped);

const removeBut = (directory: string, kept: ReadonlyArray<string>): void => {
  if (kept.length === 0) return rmSync(directory, { recursive: true, force: true });
  for (const name of readdirSync(directory)) {
    if (!kept.includes(name)) rmSync(join(directory, name), { recursive: true, force: true });
  }
};
