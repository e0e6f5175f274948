import type { ErrorCode } from "@godwit/protocol";

/**
 * What the guest's process refuses with: the code and reason of the GodwitError that the driver makes of it. A plain class,
 * because this process starts without loading Effect.
 */
export class Refusal extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, reason: string) {
    super(reason);
    this.code = code;
  }
}

/** Any thrown value as a Refusal: what was not foreseen is `guest-failed`. */
export const refusalOf = (cause: unknown): Refusal =>
  cause instanceof Refusal
    ? cause
    : new Refusal("guest-failed", cause instanceof Error ? cause.message : String(cause));
