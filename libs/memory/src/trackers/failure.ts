import * as Effect from "effect/Effect";
import type { TrackerKind } from "../dirty-tracker.ts";
import { TrackerError } from "../errors.ts";

/** Makes a TrackerError of whatever a system call threw. */
export const trackerError = (kind: TrackerKind, operation: string, cause: unknown): TrackerError =>
  cause instanceof TrackerError
    ? cause
    : new TrackerError({ kind, operation, reason: cause instanceof Error ? cause.message : String(cause) });

/** Runs system calls as one step of an Effect. */
export const attempt = <A>(kind: TrackerKind, operation: string, body: () => A): Effect.Effect<A, TrackerError> =>
  Effect.try({ try: body, catch: (cause) => trackerError(kind, operation, cause) });
