/** What JetStream's API answers when it does not do what was asked, as an error of the fabric. */
import { JetStreamApiError } from "@nats-io/jetstream";
import { type NatsConnection, PermissionViolationError, RequestError } from "@nats-io/nats-core";
import { FabricError } from "../errors.ts";

/** Codes of the JetStream API. */
export const STREAM_NOT_FOUND = 10_059;
export const STREAM_NAME_IN_USE = 10_058;
/** No leader at the moment. */
export const UNAVAILABLE = 10_008;
/** More than one replica, and no cluster. */
export const NOT_CLUSTERED = 10_074;

/** Fewer servers, or less space on them, than the replicas need. */
export const NO_SUITABLE_PEERS = 10_005;

/** The store's limit, by default three quarters of what the disk had free when the server was started. */
export const INSUFFICIENT_STORAGE = 10_047;

/** An API error with this code. */
export const hasCode = (cause: unknown, code: number): boolean =>
  cause instanceof JetStreamApiError && cause.code === code;

/** What `ask` gives, or undefined when JetStream answers with `code`. */
export async function withoutCode<A>(code: number, ask: () => Promise<A>): Promise<A | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (hasCode(error, code)) return undefined;
    throw error;
  }
}

/**
 * A server without JetStream, or an account without it, as against a leader that is away: the client reports both as
 * "not enabled", with an error class that it does not export. Only the first is for good.
 */
function isNotEnabled(cause: unknown, nc: NatsConnection): boolean {
  if (!(cause instanceof Error) || cause.name !== "JetStreamNotEnabled") return false;
  return cause.cause instanceof JetStreamApiError || nc.info?.jetstream !== true;
}

/** Nobody answers for the domain: its cluster is behind a link that is away, or it has no such name. The client cannot tell which. */
function isBehindLink(cause: unknown): boolean {
  return cause instanceof Error && cause.name === "JetStreamNotEnabled" && !(cause.cause instanceof JetStreamApiError);
}

/** Any failure of an operation on JetStream, of this domain; one that is an error of the fabric already stays as it is. */
export function refail(operation: string, cause: unknown, nc: NatsConnection, domain?: string): FabricError {
  if (cause instanceof FabricError) return cause;
  if (domain !== undefined && isBehindLink(cause)) {
    const reason = `no JetStream of domain ${domain} answers through ${nc.getServer()}: the leaf node's link is down, or there is no such domain`;
    return new FabricError({ code: "js-domain-unreachable", operation, reason, retryable: true });
  }
  if (isNotEnabled(cause, nc)) {
    const reason = `${nc.getServer()} offers no JetStream`;
    return new FabricError({ code: "nats-no-jetstream", operation, reason, retryable: false });
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  const denied =
    cause instanceof PermissionViolationError ||
    (cause instanceof RequestError && cause.cause instanceof PermissionViolationError);
  if (denied) return new FabricError({ code: "nats-denied", operation, reason, retryable: false });
  return new FabricError({ code: "failed", operation, reason, retryable: true });
}
