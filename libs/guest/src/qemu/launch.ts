import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import type { GodwitError } from "@godwit/protocol";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import type { GuestSpec } from "../guest.ts";
import { failure, qmpFailure } from "./failure.ts";
import { connectQmp } from "./qmp.ts";
import { quitQemu } from "./run-control.ts";

export type QemuSpec = Extract<GuestSpec, { driver: "qemu" }>;

/** How long a QEMU may take from its start to its monitor: allocating and preparing large RAM takes most of it. */
const START_TIMEOUT: Duration.Input = "60 seconds";
/** How much of a log's end is quoted in an error, characters. */
const LOG_TAIL_LENGTH = 600;

const STEP = "launch QEMU";

/** Where a QEMU that was launched from here writes what it has to say. */
export const qemuLogPath = (spec: QemuSpec): string => `${spec.qmp}.log`;

/** The end of that log, to be quoted; empty when there is none. */
export const qemuLogTail = (spec: QemuSpec): string => {
  try {
    return readFileSync(qemuLogPath(spec), "utf8").trim().slice(-LOG_TAIL_LENGTH);
  } catch {
    // A QEMU that somebody else started logs elsewhere.
    return "";
  }
};

/**
 * Starts the QEMU of a spec with its `launch` command line, detached: it outlives this process. Returns when its monitor
 * answers; by then it waits in `inmigrate` and writes to its RAM no more.
 *
 * Fails with `guest-exists` when a QEMU listens there already, with `guest-failed` and the end of its log when it ends or
 * stays silent.
 */
export const launchQemu = (spec: QemuSpec, command: ReadonlyArray<string>): Effect.Effect<void, GodwitError> =>
  Effect.gen(function* () {
    if (yield* isListening(spec))
      return yield* failure("guest-exists", STEP, `a QEMU for guest ${spec.name} listens on ${spec.qmp} already`);
    const child = yield* start(spec, command);
    yield* Effect.raceFirst(awaitMonitor(spec), exitedEarly(spec, child)).pipe(
      Effect.timeoutOrElse({
        duration: START_TIMEOUT,
        orElse: () => Effect.fail(failed(spec, `${spec.qmp} did not answer within ${START_TIMEOUT}`)),
      }),
      Effect.onError(() => Effect.sync(() => child.kill("SIGKILL"))),
    );
  });

/** Ends a QEMU that was launched from here for an attempt that came to nothing: also while it waits, where `discard` lets it be. */
export const quitLaunched = (spec: QemuSpec): Effect.Effect<void, GodwitError> =>
  Effect.scoped(
    connectQmp(spec.qmp).pipe(
      Effect.matchEffect({
        onSuccess: quitQemu,
        onFailure: (error) => (error.kind === "absent" ? Effect.void : Effect.fail(qmpFailure("quit")(error))),
      }),
    ),
  );

const failed = (spec: QemuSpec, reason: string): GodwitError => {
  const tail = qemuLogTail(spec);
  return failure("guest-failed", STEP, tail === "" ? reason : `${reason}; its log ends with: ${tail}`);
};

/** Whether anything listens on the monitor's socket. One that is busy with another client counts. */
const isListening = (spec: QemuSpec): Effect.Effect<boolean, GodwitError> =>
  Effect.scoped(connectQmp(spec.qmp)).pipe(
    Effect.as(true),
    Effect.catch((error) =>
      error.kind === "absent"
        ? Effect.succeed(false)
        : error.kind === "busy"
          ? Effect.succeed(true)
          : Effect.fail(qmpFailure(STEP)(error)),
    ),
  );

/** QEMU makes its socket when it is ready for it, and tells nobody. */
const awaitMonitor = (spec: QemuSpec): Effect.Effect<void, GodwitError> =>
  isListening(spec).pipe(
    Effect.repeat({ until: (listening) => listening, schedule: Schedule.spaced("10 millis") }),
    Effect.asVoid,
  );

const start = (spec: QemuSpec, command: ReadonlyArray<string>): Effect.Effect<ChildProcess, GodwitError> =>
  Effect.try({
    try: () => {
      const [program = "", ...args] = command;
      const log = openSync(qemuLogPath(spec), "w", 0o600);
      try {
        const child = spawn(program, args, { detached: true, stdio: ["ignore", log, log] });
        child.unref();
        return child;
      } finally {
        closeSync(log);
      }
    },
    catch: (cause) => failed(spec, String(cause)),
  });

/** Fails when the process ends with an error or could not be started. With `-daemonize` its first process ends well, and early. */
const exitedEarly = (spec: QemuSpec, child: ChildProcess): Effect.Effect<never, GodwitError> =>
  Effect.callback((resume) => {
    const fail = (reason: string) => resume(Effect.fail(failed(spec, reason)));
    child.once("error", (error) => fail(error.message));
    child.once("exit", (code, signal) => {
      if (code !== 0) fail(`QEMU ended with ${signal ?? `exit code ${code}`}`);
    });
  });
