import { randomBytes } from "node:crypto";
import type { NatsOptions, NatsTls } from "@godwit/fabric";
import { type DestinationOptions, parseAnnounced, parseListen } from "@godwit/fabric/direct";
import { GodwitError, Incarnation, isSafeName } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { defaultCheckpointDirectory, defaultGuestDirectory, defaultRuntimeDirectory } from "./directories.ts";

/** What an actor process needs to know to start: environment variables, each of which the command line sets as well. */
export interface Settings {
  /** GODWIT_NATS: server URLs, as the `nats` CLI takes them. */
  readonly nats: string;
  /** GODWIT_CREDS: a credentials file, or a folder with one for each role. */
  readonly creds: string | undefined;
  /** GODWIT_TLS_CA, GODWIT_TLS_CERT, GODWIT_TLS_KEY: certificates for NATS, by path. */
  readonly tls?: NatsTls;
  /** GODWIT_JS_DOMAIN: the JetStream domain that keeps the buckets; undefined: that of the servers themselves. */
  readonly jsDomain: string | undefined;
  /** GODWIT_REQUIRE_ENCRYPTION: no guest leaves this host but with capability `encryption`. Default: it may. */
  readonly requireEncryption?: boolean;
  /** GODWIT_DIRECT_LISTEN, GODWIT_DIRECT_ADDRESS: where this host takes direct connections of workers (parameter `lane`). */
  readonly direct?: DirectSettings;
  /** GODWIT_NODE: the host this actor acts for. */
  readonly node: string;
  /** GODWIT_RUNTIME_DIR: sockets, guest registry, exports; private to this node and user. */
  readonly runtimeDirectory: string;
  /** GODWIT_GUEST_DIR: RAM files of builtin guests; a tmpfs with room for them. */
  readonly guestDirectory: string;
  /** GODWIT_CHECKPOINT_DIR: the only folder in which checkpoints are written and read. */
  readonly checkpointDirectory: string;
  /** GODWIT_INCARNATION: drawn by the supervisor, so that it can name this very life when it has ended; else drawn here. */
  readonly incarnation: Incarnation;
}

/** As the operator wrote them; both were found to be what they should. */
export interface DirectSettings {
  /** `off`, HOST:PORT or HOST:FIRST-LAST; default DEFAULT_DIRECT_LISTEN. */
  readonly listen?: string;
  /** What is offered instead of the host's own addresses: HOST or HOST:PORT, separated by commas. */
  readonly address?: string;
}

/** Any port, and only while a migration arrives that wants it. */
export const DEFAULT_DIRECT_LISTEN = "0.0.0.0:0";

/** Why a text is not what it should be; null when it is. */
export const listenProblem = (text: string): string | null =>
  parseListen(text) === undefined ? "off, or an IP address and a port or a range of ports (0.0.0.0:4230-4239)" : null;
export const addressProblem = (text: string): string | null =>
  parseAnnounced(text) === undefined ? "hosts, each with or without a port, separated by commas" : null;

/** Nothing unless one is given. */
export const directOf = (
  listen: string | null | undefined,
  address: string | null | undefined,
): { readonly direct?: DirectSettings } => {
  const direct = { ...(listen ? { listen } : {}), ...(address ? { address } : {}) };
  return Object.keys(direct).length === 0 ? {} : { direct };
};

/** How the actor of this role takes direct connections. `isEncrypted`: as NATS is. */
export const directOptions = ({ direct = {} }: Settings, actor: string, isEncrypted: boolean): DestinationOptions => ({
  actor,
  listen: parseListen(direct.listen ?? DEFAULT_DIRECT_LISTEN) ?? null,
  announced: direct.address === undefined ? [] : (parseAnnounced(direct.address) ?? []),
  tls: isEncrypted,
});

export const DEFAULT_NATS = "nats://127.0.0.1:4222";

/** A fresh incarnation, migration id or the like: 64 random bits in hex. */
export const randomId = (): string => randomBytes(8).toString("hex");

/** Certificates as settings have them: nothing unless one is given. */
export const tlsOf = (
  ca: string | null | undefined,
  cert: string | null | undefined,
  key: string | null | undefined,
): { readonly tls?: NatsTls } => {
  const tls = { ...(ca ? { caFile: ca } : {}), ...(cert ? { certFile: cert } : {}), ...(key ? { keyFile: key } : {}) };
  return Object.keys(tls).length === 0 ? {} : { tls };
};

/** How a process of this role reaches NATS. */
export const natsOptionsOf = ({ nats, creds, jsDomain, tls }: Settings, role: string, name: string): NatsOptions => ({
  servers: nats,
  name,
  role,
  ...(creds === undefined ? {} : { creds }),
  ...(jsDomain === undefined ? {} : { jsDomain }),
  ...(tls === undefined ? {} : { tls }),
});

/** Whatever it is set to, but a word for no: an operator who misspells "true" must not be left without. */
const isRequired = (value: string | undefined): boolean =>
  value !== undefined && !["", "0", "false", "off", "no"].includes(value.trim().toLowerCase());

/** Fails with `invalid-parameter` when the node's name could not stand in a subject. */
export const readSettings = (role: string, env: NodeJS.ProcessEnv): Effect.Effect<Settings, GodwitError> =>
  Effect.suspend(() => {
    const node = env["GODWIT_NODE"] ?? "local";
    const invalid = (reason: string) =>
      Effect.fail(new GodwitError({ code: "invalid-parameter", actor: role, step: "read the settings", reason }));
    if (!isSafeName(node))
      return invalid(`GODWIT_NODE is "${node}", not 1 to 64 letters, digits, dashes or underscores`);
    const jsDomain = env["GODWIT_JS_DOMAIN"];
    if (jsDomain !== undefined && !isSafeName(jsDomain))
      return invalid(`GODWIT_JS_DOMAIN is "${jsDomain}", not 1 to 64 letters, digits, dashes or underscores`);
    const incarnation = env["GODWIT_INCARNATION"] ?? randomId();
    if (!Schema.is(Incarnation)(incarnation))
      return invalid(`GODWIT_INCARNATION is "${incarnation}", not 16 hex digits`);
    const [listen, address] = [env["GODWIT_DIRECT_LISTEN"], env["GODWIT_DIRECT_ADDRESS"]];
    const wrongListen = listen ? listenProblem(listen) : null;
    if (wrongListen !== null) return invalid(`GODWIT_DIRECT_LISTEN is "${listen}", not ${wrongListen}`);
    const wrongAddress = address ? addressProblem(address) : null;
    if (wrongAddress !== null) return invalid(`GODWIT_DIRECT_ADDRESS is "${address}", not ${wrongAddress}`);
    return Effect.succeed({
      nats: env["GODWIT_NATS"] ?? DEFAULT_NATS,
      creds: env["GODWIT_CREDS"] || undefined,
      ...tlsOf(env["GODWIT_TLS_CA"], env["GODWIT_TLS_CERT"], env["GODWIT_TLS_KEY"]),
      ...directOf(listen, address),
      jsDomain,
      node,
      ...(isRequired(env["GODWIT_REQUIRE_ENCRYPTION"]) ? { requireEncryption: true } : {}),
      runtimeDirectory: env["GODWIT_RUNTIME_DIR"] ?? defaultRuntimeDirectory(node),
      guestDirectory: env["GODWIT_GUEST_DIR"] ?? defaultGuestDirectory(node),
      checkpointDirectory: env["GODWIT_CHECKPOINT_DIR"] ?? defaultCheckpointDirectory(),
      incarnation,
    });
  });
