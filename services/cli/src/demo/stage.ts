/** The directories of something that is tried out on this machine. They go with the scope, and the guests in them. */
import { closeSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GodwitError } from "@godwit/protocol";
import * as Telemetry from "@godwit/telemetry";
import * as Effect from "effect/Effect";
import type * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import type { Outcome } from "../arguments/command.ts";
import { exitCodeOf } from "../reporting/failure.ts";
import type { Report } from "../reporting/report.ts";
import { abandonedDirectories, claimDirectory } from "./claimed-directory.ts";
import { endProcessesIn } from "./processes.ts";

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
const openStage = (name: string, guestRoot: string): Effect.Effect<Stage, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    let keep = false;
    const prefix = `godwit-${name}-`;
    yield* putAway([tmpdir(), guestRoot], prefix);
    const make = (root: string, kept: () => ReadonlyArray<string>) =>
      Effect.acquireRelease(
        Effect.try({ try: () => claimDirectory(root, `${prefix}${process.pid}-`), catch: refuse }),
        (claimed) =>
          Effect.andThen(
            endProcessesIn(claimed.path),
            Effect.sync(() => claimed.remove(kept())),
          ),
      );
    const { path: directory } = yield* make(tmpdir(), () => (keep ? [LOG_NAME] : []));
    const { path: guestDirectory } = yield* make(guestRoot, () => []);
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
      Effect.tapError((error) => Effect.sync(() => showFailure(error, stage, report))),
    );
    if (outcome.failure !== undefined) showFailure(outcome.failure, stage, report);
    report.answer(outcome.document, outcome.text);
    return outcome;
  }).pipe(Effect.scoped);

/** A request that was wrong needs no log to be understood, and an empty one helps nobody. */
const showFailure = (error: GodwitError, stage: Stage, report: Report): void => {
  if (exitCodeOf(error) === 2 || statSync(stage.logFile).size === 0) return;
  stage.keepLog();
  report.note(`the log of all actors: ${stage.logFile}`);
};

/** Ends what an earlier one left behind that was killed, and removes it. */
const putAway = (roots: ReadonlyArray<string>, prefix: string): Effect.Effect<void, GodwitError> =>
  Effect.gen(function* () {
    const found = yield* Effect.try({
      try: () => [...new Set(roots)].flatMap((root) => abandonedDirectories(root, prefix)),
      catch: refuse,
    });
    // First all processes: those that supervise would start others again.
    yield* Effect.forEach(found, endProcessesIn, { concurrency: "unbounded", discard: true });
    for (const path of found) rmSync(path, { recursive: true, force: true });
  });
