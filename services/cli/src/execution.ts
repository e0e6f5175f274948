/** Runs a command to its end, and turns the end into an exit code. */
import { GodwitError } from "@godwit/protocol";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import type { Outcome } from "./arguments/command.ts";
import { exitCodeOf, failureText, reportFailure, unforeseen } from "./reporting/failure.ts";
import type { Report } from "./reporting/report.ts";

/** What ends a command orderly, and the exit code that says so: 128 and the signal's number. */
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
type Signal = keyof typeof SIGNALS;

/**
 * Resolves to the exit code once the command has ended and put away what it started. A signal interrupts it; further ones change
 * nothing, since npm, a terminal and a wrapper may each send the same one.
 */
export const execute = async (work: Effect.Effect<Outcome, GodwitError>, report: Report): Promise<number> => {
  let ending: Signal | null = null;
  let fiber: Fiber.Fiber<Outcome, GodwitError> | null = null;
  const interrupt = (signal: Signal): void => {
    if (ending !== null) return;
    ending = signal;
    report.note("stopping");
    if (fiber !== null) Effect.runFork(Fiber.interrupt(fiber));
  };
  // Before the work begins: it may start processes at once.
  for (const signal of Object.keys(SIGNALS) as Signal[]) process.on(signal, interrupt);
  fiber = Effect.runFork(work);
  // Until the process is gone they stay caught: a late one must not cut off the output.
  const exit = await Effect.runPromise(Fiber.await(fiber));
  return Exit.isSuccess(exit) ? ended(exit.value, report) : broken(exit.cause, ending, report);
};

const ended = (outcome: Outcome, report: Report): number => {
  report.answer(outcome.document, outcome.text);
  if (outcome.failure === undefined) return 0;
  report.note(failureText(outcome.failure));
  return exitCodeOf(outcome.failure);
};

const broken = (cause: Cause.Cause<GodwitError>, ending: Signal | null, report: Report): number => {
  if (ending !== null) {
    const reason = `the command was ended by ${ending}`;
    const error = new GodwitError({ code: "cancelled", actor: "cli", step: "run the command", reason });
    report.answer(
      { error: { code: error.code, actor: error.actor, step: error.step, reason, remedy: error.remedy } },
      "",
    );
    return SIGNALS[ending];
  }
  return reportFailure(report, unforeseen(Cause.squash(cause)));
};
