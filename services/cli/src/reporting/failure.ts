/** The one place that shows an error: as text on stderr, or as the JSON document on stdout. */
import { GodwitError } from "@godwit/protocol";
import { errorText } from "./error-text.ts";
import type { Report } from "./report.ts";

/** What a wrong request is refused with, whoever refused it: no try with the same words can succeed. */
const WRONG_REQUEST: ReadonlySet<string> = new Set([
  "unknown-parameter",
  "invalid-parameter",
  "unknown-capability",
  "capability-conflict",
]);

export const exitCodeOf = (error: GodwitError): 1 | 2 => (WRONG_REQUEST.has(error.code) ? 2 : 1);

/** An error as JSON shows it: its data and what to do. */
export const failureDocument = (error: GodwitError) => ({
  code: error.code,
  actor: error.actor,
  ...(error.side === undefined ? {} : { side: error.side }),
  step: error.step,
  reason: error.reason,
  ...(error.differences === undefined ? {} : { differences: error.differences }),
  remedy: error.remedy,
});

export const failureText = (error: GodwitError): string => {
  const where = [error.actor, ...(error.side === undefined ? [] : [error.side]), error.step].join(", ");
  const differences = (error.differences ?? []).map(({ what, mine, yours }) => `${what}: mine ${mine}, yours ${yours}`);
  return errorText(error.code, [`${error.reason} (${where})`, ...differences].join("\n  "), error.remedy);
};

/** Shows it, and returns the exit code. */
export const reportFailure = (report: Report, error: GodwitError): number => {
  report.answer({ error: failureDocument(error) }, "");
  report.note(failureText(error));
  return exitCodeOf(error);
};

/** Anything that was thrown as something that can be shown. What was not foreseen keeps its stack for the report. */
export const unforeseen = (cause: unknown): GodwitError =>
  cause instanceof GodwitError
    ? cause
    : new GodwitError({
        code: "internal",
        actor: "cli",
        step: "run the command",
        reason: cause instanceof Error ? (cause.stack ?? cause.message) : String(cause),
      });
