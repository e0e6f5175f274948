import { errnoOf } from "@godwit/host";
import { type ErrorCode, GodwitError } from "@godwit/protocol";
import { QmpError } from "./qmp-error.ts";

/** The error of a QEMU that did not do what `step` says. */
export const failure = (code: ErrorCode, step: string, reason: string): GodwitError =>
  new GodwitError({ code, actor: "guest", step, reason });

/** What a failed conversation with the monitor means for the operator. */
export const qmpFailure =
  (step: string) =>
  (error: QmpError): GodwitError => {
    const code: ErrorCode =
      error.kind === "absent" ? "no-such-guest" : error.kind === "busy" ? "wrong-state" : "guest-failed";
    return failure(code, step, error.message);
  };

/** Any error of a step as the operator sees it. */
export const asFailure =
  (step: string) =>
  (error: QmpError | GodwitError): GodwitError =>
    error instanceof QmpError ? qmpFailure(step)(error) : error;

/** What went wrong with a file or socket of this host. */
export const localFailure =
  (step: string) =>
  (cause: unknown): GodwitError =>
    failure(
      errnoOf(cause) === "ENOSPC" ? "no-space" : "device-state-failed",
      step,
      cause instanceof Error ? cause.message : String(cause),
    );
