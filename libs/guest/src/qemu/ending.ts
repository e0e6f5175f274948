/**
 * How a QEMU's guest ends its own life, as its monitor tells it.
 *
 *     SHUTDOWN, and then the process ends           the guest powered itself off, or QEMU was told to quit
 *     SHUTDOWN, and it stays in `shutdown`          the same with -no-shutdown
 *     STOP, and it stays in `guest-panicked` ...    it cannot go on by itself
 *     the connection ends, the socket is removed    ended in good order, while somebody else was at the monitor
 *     the connection ends, the socket is left       killed, or crashed
 *
 * A RESET is no ending: the guest boots anew, in the same memory. POWERDOWN only asks the guest to shut down.
 */
import { existsSync } from "node:fs";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Queue from "effect/Queue";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import type { GuestEnding } from "../guest.ts";
import { isQmpAbsent, type Qmp } from "./qmp.ts";
import type { QmpError } from "./qmp-error.ts";
import { QemuStatus } from "./run-state.ts";

/**
 * How long the monitor is held in one go. Then whoever waits for it has a turn (godwit's other actors give up after 2 s). What
 * QEMU says between two turns is not heard: of a shutdown that falls in there only the removed socket tells.
 */
const TURN: Duration.Input = "500 millis";
/** Between two looks at a QEMU that is about to be gone; and at one that does not speak with us. */
const LOOK_AGAIN: Duration.Input = "20 millis";
const LOOK_SLOWLY: Duration.Input = "1 second";

/** Watches the QEMU behind `monitor` until its guest has ended. */
export const endingOf = Effect.fnUntraced(function* (
  monitor: Effect.Effect<Qmp, QmpError, Scope.Scope>,
  socketPath: string,
): Effect.fn.Return<GuestEnding> {
  let pid = 0;
  const noted = Effect.tap(monitor, (qmp) =>
    Effect.sync(() => {
      pid = qmp.peer.pid;
    }),
  );
  for (;;) {
    const turn = yield* Effect.result(Effect.scoped(Effect.flatMap(noted, watchForOneTurn)));
    if (turn._tag === "Success") {
      if (turn.success !== null) return turn.success;
      continue;
    }
    const { kind } = turn.failure;
    if (kind === "absent" || (kind === "closed" && (yield* isQmpAbsent(socketPath))))
      return endingOfGone(socketPath, pid);
    yield* Effect.sleep(kind === "closed" ? LOOK_AGAIN : LOOK_SLOWLY);
  }
});

/** A QEMU that ends in good order removes its socket before it closes it; one that is killed leaves it behind. `pid` is 0 when it was never met. */
const endingOfGone = (socketPath: string, pid: number): GuestEnding => {
  if (pid === 0) return { how: "crashed", reason: `no QEMU listens at its monitor, ${socketPath}` };
  return existsSync(socketPath)
    ? { how: "crashed", reason: `its QEMU, process ${pid}, is gone without a word: it was killed or has crashed` }
    : { how: "shutdown", reason: `its QEMU, process ${pid}, was ended in good order` };
};

/** Null: it lives. */
const watchForOneTurn = (qmp: Qmp): Effect.Effect<GuestEnding | null, QmpError, Scope.Scope> =>
  Effect.gen(function* () {
    const shutdowns = yield* qmp.events("SHUTDOWN");
    const stops = yield* qmp.events("STOP");
    const looked = qmp.execute("query-status", QemuStatus).pipe(
      Effect.map(({ status }) => endingOfStatus(status)),
      Effect.flatMap((ending) =>
        ending !== null
          ? Effect.succeed(ending)
          : // A guest that was stopped is looked at anew: the event does not say by what.
            Effect.raceFirst(Effect.as(Queue.take(stops), null), Effect.as(Effect.sleep(TURN), null)),
      ),
      // The last event comes before the connection's end, and is read before it.
      Effect.catch((error) => (error.kind === "closed" ? Effect.never : Effect.fail(error))),
    );
    return yield* Effect.raceFirst(Effect.map(Queue.take(shutdowns), endingOfShutdown), looked);
  });

/** Run states that a guest does not leave by itself. */
const DEAD_ENDS = new Set(["guest-panicked", "internal-error", "io-error", "watchdog"]);

export const endingOfStatus = (status: string): GuestEnding | null => {
  if (status === "shutdown") return { how: "shutdown", reason: "the guest shut itself down" };
  if (DEAD_ENDS.has(status)) return { how: "crashed", reason: `QEMU stopped it and is in run state "${status}"` };
  return null;
};

const Shutdown = Schema.Struct({ guest: Schema.Boolean, reason: Schema.String });
const isShutdown = Schema.is(Shutdown);
/** Reasons of a SHUTDOWN that are no orderly end. */
const CRASHES = new Set(["guest-panic", "host-error"]);

/** `data`: what came with a SHUTDOWN event. */
export const endingOfShutdown = (data: unknown): GuestEnding => {
  if (!isShutdown(data)) return { how: "shutdown", reason: "the guest was shut down" };
  const { guest, reason } = data;
  if (CRASHES.has(reason)) return { how: "crashed", reason: `QEMU shut it down for ${reason}` };
  return {
    how: "shutdown",
    reason: guest ? `the guest shut itself down (${reason})` : `QEMU was told to end (${reason})`,
  };
};
