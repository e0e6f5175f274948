import { accessSync, constants } from "node:fs";
import { PermissionViolationError } from "@nats-io/nats-core";
import type { NatsConnectionImpl } from "@nats-io/nats-core/internal";
import { type ConnectionOptions, credsAuthenticator, type NatsConnection } from "@nats-io/transport-node";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { FabricError } from "../errors.ts";
import type { LinkEvent, Plane } from "../fabric.ts";
import { type Credentials, readCredentials } from "./credentials.ts";
import { connect } from "./transport.ts";
import { isSupportedVersion, NATS_VERSION_MIN } from "./version.ts";

export interface NatsOptions {
  /** URLs of the servers, separated by commas when it is one string; `nats://user:password@host` and `tls://` are understood. */
  readonly servers: string | ReadonlyArray<string>;
  /** Shown by the server's monitoring; the connections are named `<name> control` and `<name> bulk`. */
  readonly name: string;
  /** Path of a credentials file, or of a folder of them. */
  readonly creds?: string;
  /** Which credentials of a folder: `<role>.creds`. */
  readonly role?: string;
  /** The domain of the JetStream that keeps the buckets, where servers have one: needed behind a leaf node, harmless beside it. */
  readonly jsDomain?: string;
  /** Certificates for servers that ask for TLS, by path; without it the system's authorities count. */
  readonly tls?: NatsTls;
}

export interface NatsTls {
  /** Authorities that may vouch for the servers. */
  readonly caFile?: string;
  /** This client's own, for servers that ask for one. */
  readonly certFile?: string;
  readonly keyFile?: string;
}

/** How long a first connection may take, all servers and addresses together, ms; what it names is refused in time to be read. */
export const CONNECT_TIMEOUT_MS = 5_000;
/** One attempt, ms: an address whose packets vanish must not use up the time of the others. */
const DIAL_TIMEOUT_MS = 2_000;
/** A dead server is noticed after three of these, ms; the client's own default is two minutes. */
const PING_INTERVAL_MS = 1_000;
const PINGS_OUT_MAX = 2;
/** Between attempts to reconnect, ms. Attempts are free of charge on a loopback or a rack's network, and a guest may be paused meanwhile. */
const RECONNECT_WAIT_MS = 100;
const RECONNECT_JITTER_MS = 50;
/** How long closing may try to hand over what was published, ms. */
const CLOSE_MS = 1_000;

/** One connection, and whether it is up now. */
export interface NatsLink {
  readonly plane: Plane;
  readonly nc: NatsConnection;
  readonly connected: () => boolean;
  /** By TLS; servers that ask for it are asked for it again at each reconnect. */
  readonly isEncrypted: boolean;
}

/** What a connection tells about itself, as it happens. Must not throw. */
export type LinkListener = (event: LinkEvent) => void;

/**
 * Connects for the life of the scope, and reconnects for ever. Fails with `nats-unreachable`, `nats-denied` or `nats-too-old`.
 */
export const openLink = (
  options: NatsOptions,
  plane: Plane,
  listener: LinkListener,
): Effect.Effect<NatsLink, FabricError, Scope.Scope> =>
  Effect.gen(function* () {
    const nc = yield* Effect.acquireRelease(dial(options, plane), close);
    const version = nc.info?.version ?? "unknown";
    if (!isSupportedVersion(version)) {
      return yield* new FabricError({
        code: "nats-too-old",
        operation: `connect to ${nc.getServer()}`,
        reason: `nats-server ${version} is older than ${NATS_VERSION_MIN}`,
        retryable: false,
      });
    }
    let connected = true;
    const follow = async () => {
      for await (const status of nc.status()) {
        if (status.type === "disconnect") {
          // One cut is told once, although every failed attempt to reconnect tells it again.
          if (connected) listener({ _tag: "Disconnected", plane });
          connected = false;
        } else if (status.type === "reconnect") {
          connected = true;
          listener({ _tag: "Reconnected", plane });
        } else if (status.type === "error" && status.error instanceof PermissionViolationError) {
          listener({ _tag: "Denied", plane, reason: status.error.message });
        }
      }
    };
    void follow();
    void nc.closed().then((why) => {
      connected = false;
      listener({ _tag: "Closed", plane, reason: why instanceof Error ? why.message : "closed by this actor" });
    });
    const { transport } = (nc as unknown as NatsConnectionImpl).protocol;
    return { plane, nc, connected: () => connected, isEncrypted: transport.isEncrypted() };
  });

const dial = (options: NatsOptions, plane: Plane): Effect.Effect<NatsConnection, FabricError> => {
  const servers = typeof options.servers === "string" ? options.servers.split(",") : [...options.servers];
  const refused = (cause: unknown) => {
    if (cause instanceof FabricError) return cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const denied = cause instanceof Error && /Authorization|Authentication/.test(cause.name);
    const untrusted = isUntrusted(cause);
    return new FabricError({
      code: denied ? "nats-denied" : untrusted ? "nats-untrusted" : "nats-unreachable",
      operation: `connect to ${servers.map(withoutPassword).join(", ")}`,
      reason,
      retryable: !denied && !untrusted,
    });
  };
  return Effect.tryPromise({
    try: async () => connectWithin(connectionOptions(options, servers, plane)),
    catch: refused,
  });
};

/** Codes of Node and OpenSSL for a certificate that is not believed, or is another's. */
const UNTRUSTED = /CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|ALTNAME/;

/** The client wraps what the socket said. */
const isUntrusted = (cause: unknown): boolean => {
  for (let error = cause; error instanceof Error; error = error.cause)
    if ("code" in error && typeof error.code === "string" && UNTRUSTED.test(error.code)) return true;
  return false;
};

async function connectWithin(options: ConnectionOptions): Promise<NatsConnection> {
  const connecting = connect(options);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no connection within ${CONNECT_TIMEOUT_MS} ms`)), CONNECT_TIMEOUT_MS);
  });
  try {
    return await Promise.race([connecting, late]);
  } catch (error) {
    // Should it succeed after all, nobody would close it.
    void connecting.then((nc) => nc.close()).catch(() => {});
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function connectionOptions(options: NatsOptions, servers: ReadonlyArray<string>, plane: Plane): ConnectionOptions {
  const connection: ConnectionOptions = {
    servers: servers.map((server) => server.trim().replace(/^(\w+:\/\/)?[^@/]*@/, "$1")),
    name: `${options.name} ${plane}`,
    timeout: DIAL_TIMEOUT_MS,
    pingInterval: PING_INTERVAL_MS,
    maxPingOut: PINGS_OUT_MAX,
    maxReconnectAttempts: -1,
    reconnectTimeWait: RECONNECT_WAIT_MS,
    reconnectJitter: RECONNECT_JITTER_MS,
    reconnectJitterTLS: RECONNECT_JITTER_MS,
    // The stack of every request costs more than the request.
    noAsyncTraces: true,
  };
  const login = /^(?:\w+:\/\/)?([^@/:]*)(?::([^@/]*))?@/.exec(servers[0] ?? "");
  if (login?.[2] !== undefined) {
    connection.user = decodeURIComponent(login[1] ?? "");
    connection.pass = decodeURIComponent(login[2]);
  } else if (login?.[1]) {
    connection.token = decodeURIComponent(login[1]);
  }
  if (options.creds !== undefined)
    Object.assign(connection, authenticated(readCredentials(options.creds, options.role)));
  if (options.tls !== undefined) connection.tls = checkedTls(options.tls);
  else if (servers.some((server) => server.trim().startsWith("tls://"))) connection.tls = {};
  return connection;
}

/** The file is read again for each connection: one that was renewed counts from the next on, one that is just being renewed does not. */
const authenticated = ({ path, content, inboxPrefix }: Credentials): Partial<ConnectionOptions> => {
  let latest = content;
  const renewed = (): Uint8Array => {
    try {
      latest = readCredentials(path, undefined).content;
    } catch {
      // The client would give the connection up for ever.
    }
    return latest;
  };
  return { authenticator: credsAuthenticator(renewed), ...(inboxPrefix === undefined ? {} : { inboxPrefix }) };
};

/** A file that cannot be read is found out before a server is asked, and is not tried again. */
const checkedTls = (tls: NatsTls): NatsTls => {
  for (const file of [tls.caFile, tls.certFile, tls.keyFile]) {
    try {
      if (file !== undefined) accessSync(file, constants.R_OK);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new FabricError({ code: "nats-untrusted", operation: `read ${file}`, reason, retryable: false });
    }
  }
  return { ...tls };
};

const withoutPassword = (server: string): string => server.replace(/^(\w+:\/\/)?[^@/]*@/, "$1***@");

/** Hands over what was published, as far as that is possible within CLOSE_MS: a server that is away must not keep us. */
const close = (nc: NatsConnection): Effect.Effect<void> =>
  Effect.promise(async () => {
    if (nc.isClosed()) return;
    await Promise.race([nc.flush().catch(() => {}), new Promise((resolve) => setTimeout(resolve, CLOSE_MS))]);
    await nc.close();
  });
