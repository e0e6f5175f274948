import { randomBytes } from "node:crypto";
import type { NatsOptions, NatsTls } from "@godwit/fabric";
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
    return Effect.succeed({
      nats: env["GODWIT_NATS"] ?? DEFAULT_NATS,
      creds: env["GODWIT_CREDS"] || undefined,
      ...tlsOf(env["GODWIT_TLS_CA"], env["GODWIT_TLS_CERT"], env["GODWIT_TLS_KEY"]),
      jsDomain,
      node,
      ...(isRequired(env["GODWIT_REQUIRE_ENCRYPTION"]) ? { requireEncryption: true } : {}),
      runtimeDirectory: env["GODWIT_RUNTIME_DIR"] ?? defaultRuntimeDirectory(node),
      guestDirectory: env["GODWIT_GUEST_DIR"] ?? defaultGuestDirectory(node),
      checkpointDirectory: env["GODWIT_CHECKPOINT_DIR"] ?? defaultCheckpointDirectory(),
      incarnation,
    });
  });
