import { type ErrorCode, GodwitError } from "./error.ts";

/**
 * A failure as plain data: what decisions work with (an Error with a stack costs 13 us and is no value to compare) and what
 * records and reports carry. `toError` and `fromError` are the two doors to the typed error.
 */
export interface Failure {
  readonly code: ErrorCode;
  readonly actor: string;
  readonly side?: "source" | "destination";
  readonly step: string;
  readonly reason: string;
  readonly differences?: ReadonlyArray<{ readonly what: string; readonly mine: string; readonly yours: string }>;
}

export const toError = (failure: Failure): GodwitError => new GodwitError(failure);

export const fromError = (error: GodwitError): Failure => ({
  code: error.code,
  actor: error.actor,
  step: error.step,
  reason: error.reason,
  ...(error.side === undefined ? {} : { side: error.side }),
  ...(error.differences === undefined ? {} : { differences: error.differences }),
});
