import type { GodwitError } from "@godwit/protocol";
import * as Schema from "effect/Schema";

/** The network failed an operation; `retryable` says whether the same call can succeed later. */
export class FabricError extends Schema.TaggedError<FabricError>()("FabricError", {
  code: Schema.Literals([
    "nats-unreachable",
    "nats-too-old",
    "nats-no-jetstream",
    "js-domain-unreachable",
    "nats-denied",
    "nats-untrusted",
    "nats-cluster-too-small",
    "no-space",
    "bucket-missing",
    "bucket-unsafe",
    "closed",
    "failed",
  ]),
  operation: Schema.String,
  reason: Schema.String,
  retryable: Schema.Boolean,
}) {
  override get message(): string {
    return `${this.operation}: ${this.reason}`;
  }
}

/** Nobody subscribes to the subject: the request was not executed by anyone we know of. */
export class NoResponders extends Schema.TaggedError<NoResponders>()("NoResponders", { subject: Schema.String }) {
  override get message(): string {
    return `nobody answers on ${this.subject}`;
  }
}

/** No answer in time. The request may still be executed later: commands carry an epoch and a deadline for that. */
export class RequestTimeout extends Schema.TaggedError<RequestTimeout>()("RequestTimeout", {
  subject: Schema.String,
  timeoutMs: Schema.Number,
}) {
  override get message(): string {
    return `no answer on ${this.subject} within ${this.timeoutMs} ms`;
  }
}

/** `GodwitError` is the other side's own refusal. */
export type RequestError = NoResponders | RequestTimeout | FabricError | GodwitError;
