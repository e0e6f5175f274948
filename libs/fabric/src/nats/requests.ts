import { PROTOCOL, versionText } from "@godwit/protocol";
import {
  errors,
  headers,
  type Msg,
  type NatsConnection,
  RequestError as NatsRequestError,
  PermissionViolationError,
  TimeoutError,
} from "@nats-io/nats-core";
import { ServiceErrorCodeHeader, ServiceErrorHeader, Svcm } from "@nats-io/services";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { FabricError, NoResponders, type RequestError, RequestTimeout } from "../errors.ts";
import type { ServiceDefinition } from "../fabric.ts";
import { makeHandlers, openReply, type Reply, requestFailed } from "../requests.ts";

/*
 * A refusal travels as NATS services' own error reply: the header `Nats-Service-Error-Code` holds REFUSED or BUSY,
 * `Nats-Service-Error` a word for those who watch with the `nats` tool, and the payload of REFUSED the GodwitError as JSON.
 */
const REFUSED = "500";
const BUSY = "429";

/** Waiting for a service to stop, ms: its subscriptions are drained through a server that may be away. */
const STOP_MS = 1_000;

export const request = (
  nc: NatsConnection,
  subject: string,
  data: Uint8Array,
  timeoutMs: number,
): Effect.Effect<Uint8Array, RequestError> =>
  Effect.tryPromise({
    try: () => nc.request(subject, data, { timeout: timeoutMs }),
    catch: (cause) => refail(subject, timeoutMs, cause),
  }).pipe(Effect.flatMap((message) => openReply(subject, replyOf(message))));

/** Registers a NATS micro service for the life of the scope. */
export const serve = (
  nc: NatsConnection,
  actor: string,
  definition: ServiceDefinition,
  refused: () => void,
): Effect.Effect<void, FabricError, Scope.Scope> =>
  Effect.gen(function* () {
    const handle = yield* makeHandlers(actor, refused);
    const { name, version, description } = definition;
    const failed = (cause: unknown) =>
      new FabricError({
        code: "failed",
        operation: `serve ${name}`,
        reason: cause instanceof Error ? cause.message : String(cause),
        retryable: false,
      });
    // An empty queue: every endpoint says by itself whether replicas share its requests.
    const service = yield* Effect.acquireRelease(
      Effect.tryPromise({
        try: () =>
          new Svcm(nc).add({
            name,
            version,
            description,
            queue: "",
            metadata: { "godwit-protocol": versionText(PROTOCOL) },
          }),
        catch: failed,
      }),
      (running) => Effect.promise(() => running.stop()).pipe(Effect.timeoutOption(STOP_MS), Effect.asVoid),
    );
    yield* Effect.try({
      try: () => {
        for (const endpoint of definition.endpoints) {
          const { subject, queue } = endpoint;
          service.addEndpoint(endpoint.name, {
            subject,
            ...(queue === undefined ? {} : { queue }),
            handler: (error, message) => {
              if (error === null) handle(endpoint, message.subject, message.data, (reply) => respond(message, reply));
            },
          });
        }
      },
      catch: failed,
    });
    yield* Effect.tryPromise({ try: () => nc.flush(), catch: failed });
    // One endpoint that NATS refuses ends the whole service: nobody would be answered, and nobody told.
    if (service.isStopped) {
      const cause = yield* Effect.promise(() => service.stopped);
      const reason = cause?.message ?? "it has stopped";
      return yield* new FabricError({ code: "nats-denied", operation: `serve ${name}`, reason, retryable: false });
    }
  });

function respond(message: Msg, reply: Reply): void {
  try {
    if (reply._tag === "Ok") {
      message.respond(reply.data);
      return;
    }
    const marks = headers();
    marks.set(ServiceErrorCodeHeader, reply._tag === "Busy" ? BUSY : REFUSED);
    marks.set(ServiceErrorHeader, reply._tag === "Busy" ? "busy" : "refused");
    message.respond(reply._tag === "Busy" ? new Uint8Array(0) : reply.error, { headers: marks });
  } catch {
    // The connection was closed, or the answer is larger than a message may be. Either way the caller's timeout tells it.
  }
}

function replyOf(message: Msg): Reply {
  const code = message.headers?.get(ServiceErrorCodeHeader) ?? "";
  if (code === "") return { _tag: "Ok", data: message.data };
  return code === BUSY ? { _tag: "Busy" } : { _tag: "Refused", error: message.data };
}

function refail(subject: string, timeoutMs: number, cause: unknown): RequestError {
  if (cause instanceof TimeoutError) return new RequestTimeout({ subject, timeoutMs });
  const inner = cause instanceof NatsRequestError ? (cause.cause ?? cause) : cause;
  if (cause instanceof NatsRequestError && cause.isNoResponders()) return new NoResponders({ subject });
  const reason = inner instanceof Error ? inner.message : String(inner);
  const operation = `request ${subject}`;
  if (inner instanceof PermissionViolationError) {
    return new FabricError({ code: "nats-denied", operation, reason, retryable: false });
  }
  if (inner instanceof errors.ClosedConnectionError) {
    return new FabricError({ code: "closed", operation, reason, retryable: false });
  }
  return requestFailed(subject, reason, false);
}
