import { GodwitError } from "@godwit/protocol";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as FiberSet from "effect/FiberSet";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import { FabricError } from "./errors.ts";
import { type Endpoint, HANDLERS_MAX } from "./fabric.ts";

/** What a handler's outcome is on the wire. A refusal carries the GodwitError as JSON. */
export type Reply =
  | { readonly _tag: "Ok"; readonly data: Uint8Array }
  | { readonly _tag: "Refused"; readonly error: Uint8Array }
  | { readonly _tag: "Busy" };

const ErrorJson = Schema.fromJsonString(GodwitError);
const encodeError = Schema.encodeSync(ErrorJson);
const decodeError = Schema.decodeUnknownEffect(ErrorJson);

/**
 * Runs handlers in fibers that end with the scope, at most HANDLERS_MAX at a time; `respond` is called exactly once, or never after the
 * scope's end. `refused` is called for each request that is turned away.
 */
export const makeHandlers = (
  actor: string,
  refused: () => void,
): Effect.Effect<
  (endpoint: Endpoint, subject: string, data: Uint8Array, respond: (reply: Reply) => void) => void,
  never,
  Scope.Scope
> =>
  Effect.gen(function* () {
    const run = yield* FiberSet.makeRuntime<never>();
    let running = 0;
    return (endpoint, subject, data, respond) => {
      if (running >= HANDLERS_MAX) {
        refused();
        respond({ _tag: "Busy" });
        return;
      }
      running++;
      run(
        Effect.suspend(() => endpoint.handle(data, subject)).pipe(
          Effect.matchCause({
            onSuccess: (answer) => respond({ _tag: "Ok", data: answer }),
            onFailure: (cause) => {
              // Interrupted: the service is closing, and silence says so.
              if (Cause.hasInterruptsOnly(cause)) return;
              respond({ _tag: "Refused", error: encoded(refusal(actor, endpoint, cause)) });
            },
          }),
          Effect.ensuring(
            Effect.sync(() => {
              running--;
            }),
          ),
        ),
      );
    };
  });

/** A handler that dies has a bug; its caller gets an answer all the same, and need not wait for a timeout. */
function refusal(actor: string, endpoint: Endpoint, cause: Cause.Cause<GodwitError>): GodwitError {
  const error = Cause.squash(cause);
  if (error instanceof GodwitError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new GodwitError({ code: "internal", actor, step: `answer ${endpoint.name}`, reason });
}

const encoded = (error: GodwitError): Uint8Array => new TextEncoder().encode(encodeError(error));

/** The caller's side of `Reply`. */
export const openReply = (subject: string, reply: Reply): Effect.Effect<Uint8Array, FabricError | GodwitError> => {
  switch (reply._tag) {
    case "Ok":
      return Effect.succeed(reply.data);
    case "Busy":
      return Effect.fail(requestFailed(subject, `more than ${HANDLERS_MAX} requests at once`, true));
    case "Refused":
      return decodeError(new TextDecoder().decode(reply.error)).pipe(
        Effect.mapError((error) => requestFailed(subject, `the refusal cannot be read: ${error.message}`, false)),
        Effect.flatMap((error) => Effect.fail(error)),
      );
  }
};

export const requestFailed = (subject: string, reason: string, retryable: boolean): FabricError =>
  new FabricError({ code: "failed", operation: `request ${subject}`, reason, retryable });
