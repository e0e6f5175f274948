import type { GodwitError } from "@godwit/protocol";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import * as Schema from "effect/Schema";
import { asFailure, failure } from "./failure.ts";
import { isQmpAbsent, type Qmp } from "./qmp.ts";
import type { QmpError } from "./qmp-error.ts";
import { type QemuState, readRunState } from "./run-state.ts";

/** How long QEMU may take to end after `quit`: it flushes its disks before. */
const QUIT_TIMEOUT: Duration.Input = "30 seconds";

/** The error of a QEMU that is in a state which does not allow `step`. */
export const wrongState = (step: string, state: Pick<QemuState, "status">, remedy: string): GodwitError =>
  failure("wrong-state", step, `QEMU is in run state "${state.status}"; ${remedy}`);

/** Stops all vCPUs. QEMU answers `stop` once they stand still and its disks are flushed. */
export const pauseQemu = (qmp: Qmp): Effect.Effect<void, GodwitError> =>
  Effect.gen(function* () {
    if ((yield* readRunState(qmp)).runState !== "running") return;
    yield* qmp.execute("stop", Schema.Unknown);
    const state = yield* readRunState(qmp);
    if (state.runState === "running") return yield* wrongState("pause", state, "somebody else started it again");
  }).pipe(Effect.mapError(asFailure("pause")));

/**
 * Lets a stopped guest go on, whether it was paused, gave its device state away, or has taken one.
 *
 * Trap: to a QEMU that still waits for its device state, `cont` means "start by yourself when it has come", and succeeds.
 */
export const resumeQemu = (qmp: Qmp): Effect.Effect<void, GodwitError> =>
  Effect.gen(function* () {
    const before = yield* readRunState(qmp);
    if (before.runState === "running") return;
    if (before.runState !== "paused") return yield* wrongState("resume", before, "only a paused guest can go on");
    yield* qmp.execute("cont", Schema.Unknown);
    const after = yield* readRunState(qmp);
    if (after.runState !== "running") return yield* wrongState("resume", after, "it did not go on");
  }).pipe(Effect.mapError(asFailure("resume")));

/**
 * Ends a QEMU for good, by `quit`, which lets go of its disks. A destination that waits and was fed nothing is left as it is:
 * ready for another try. One that was fed, well or badly, is ended: QEMU takes a device state once in its life.
 * A guest that runs is refused: it is the only copy.
 */
export const discardQemu = (qmp: Qmp): Effect.Effect<void, GodwitError> =>
  Effect.gen(function* () {
    const state = yield* readRunState(qmp);
    if (state.runState === "incoming")
      return yield* Effect.logInfo("the destination was fed nothing and stays, ready for another try");
    yield* quit(qmp, state);
  }).pipe(Effect.mapError(asFailure("discard")));

/** Ends a QEMU for good, also one that waits; a guest that runs is refused. */
export const quitQemu = (qmp: Qmp): Effect.Effect<void, GodwitError> =>
  Effect.flatMap(readRunState(qmp), (state) => quit(qmp, state)).pipe(Effect.mapError(asFailure("quit")));

/** Only says it. QEMU may end before its answer is out. */
export const sayQuit = (qmp: Qmp): Effect.Effect<void, QmpError> =>
  qmp.execute("quit", Schema.Unknown).pipe(
    Effect.catch((error) => (error.kind === "closed" ? Effect.void : Effect.fail(error))),
    Effect.asVoid,
  );

const quit = (qmp: Qmp, state: Omit<QemuState, "migration">): Effect.Effect<void, QmpError | GodwitError> =>
  Effect.gen(function* () {
    if (state.runState === "running") return yield* wrongState("discard", state, "a running guest is not thrown away");
    yield* Effect.logInfo(`QEMU is ended in run state "${state.status}"`);
    yield* sayQuit(qmp);
    // The connection ends before the process does: until its socket is gone, it could be taken for a guest that is there.
    yield* qmp.ended.pipe(
      Effect.andThen(isQmpAbsent(qmp.socketPath)),
      Effect.repeat({ until: (absent) => absent, schedule: Schedule.spaced("5 millis") }),
      Effect.timeoutOrElse({
        duration: QUIT_TIMEOUT,
        orElse: () =>
          Effect.fail(wrongState("discard", state, `it did not end within ${QUIT_TIMEOUT}; kill its process`)),
      }),
    );
  });
