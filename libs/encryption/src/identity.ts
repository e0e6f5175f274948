/**
 * Who an actor is: a user of the NATS account, as its credentials file says (a JWT signed by the account, and the seed of the user's nkey).
 * The broker can read all of it but the seed, so it can neither sign for an actor nor make an actor of its own.
 */

import { isMalformed, json } from "@godwit/protocol";
import { fromPublic, fromSeed } from "@nats-io/nkeys";
import * as Schema from "effect/Schema";

/** Of a JWT with a full table of permissions; more is no JWT of ours, characters. */
const JWT_CHARS_MAX = 16 * 1024;
/** Two hosts' clocks may differ by so much, s. */
const CLOCK_SKEW_S = 60;

export interface Identity {
  readonly role: string;
  readonly node: string;
  /** The account key, or signing key, that vouches for the user. */
  readonly issuer: string;
  readonly jwt: string;
  readonly sign: (statement: Uint8Array) => Uint8Array;
}

/** Why somebody is not who they should be. */
export interface NotIdentified {
  readonly notIdentified: string;
}
const not = (notIdentified: string): NotIdentified => ({ notIdentified });
export const isNotIdentified = (value: object): value is NotIdentified => "notIdentified" in value;

/** s since 1970, up to a year that a date can show. */
const Time = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 40 }));
/** What a user's JWT claims, as far as it matters here (NATS JWT version 2). Times: 0 or absent: no limit. */
const Claims = Schema.Struct({
  iss: Schema.String.check(Schema.isPattern(/^A[A-Z2-7]{55}$/)),
  sub: Schema.String.check(Schema.isPattern(/^U[A-Z2-7]{55}$/)),
  name: Schema.String,
  exp: Schema.optionalKey(Time),
  nbf: Schema.optionalKey(Time),
  nats: Schema.Struct({
    type: Schema.Literal("user"),
    version: Schema.Literal(2),
    bearer_token: Schema.optionalKey(Schema.Boolean),
  }),
});
const claims = json(Claims);
const header = json(Schema.Struct({ typ: Schema.Literals(["JWT", "jwt"]), alg: Schema.Literal("ed25519-nkey") }));

const JWT = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/;
const base64url = (text: string): Uint8Array => Buffer.from(text, "base64url");
/** NATS signs with ed25519, by nkeys: a key of another kind, or one with a wrong checksum, is no key. */
const isSignedBy = (key: string, statement: Uint8Array, signature: Uint8Array): boolean => {
  try {
    return fromPublic(key).verify(statement, signature);
  } catch {
    return false;
  }
};

/** The claims of a JWT that is valid now, and that its issuer has signed: `issuer`, where only one counts. What costs time comes last. */
const verifiedClaims = (jwt: string, issuer: string | null, nowMs: number): typeof Claims.Type | NotIdentified => {
  const parts = jwt.length > JWT_CHARS_MAX ? null : JWT.exec(jwt);
  if (parts === null) return not("its user JWT is none");
  const [, head = "", body = "", signature = ""] = parts;
  if (isMalformed(header.decode(base64url(head)))) return not("its user JWT is not signed as NATS signs");
  const claimed = claims.decode(base64url(body));
  if (isMalformed(claimed)) return not(`its JWT is not a user's: ${claimed.malformed}`);
  if (issuer !== null && claimed.iss !== issuer)
    return not(`its user JWT was issued by ${claimed.iss}, and not by ${issuer}, as that of this actor`);
  const now = nowMs / 1000;
  if (claimed.exp !== undefined && claimed.exp !== 0 && claimed.exp + CLOCK_SKEW_S < now)
    return not(`its user JWT has expired at ${new Date(claimed.exp * 1000).toISOString()}`);
  if (claimed.nbf !== undefined && claimed.nbf > now + CLOCK_SKEW_S)
    return not(`its user JWT is not valid before ${new Date(claimed.nbf * 1000).toISOString()}`);
  // Whoever has read it could speak for the actor.
  if (claimed.nats.bearer_token === true)
    return not("its user JWT is a bearer token, which everybody who reads it can use");
  return isSignedBy(claimed.iss, Buffer.from(`${head}.${body}`), base64url(signature))
    ? claimed
    : not("the signature of its user JWT is wrong");
};

const nameOf = (role: string, node: string): string => `${role}.${node}`;

const PART = /-{3,}[^\n]*-{3,}\r?\n([A-Za-z0-9_.-]+)\r?\n-{3,}[^\n]*-{3,}/g;

/** The identity in the text of a credentials file, which must be that of `role` at `node`. */
export const parseIdentity = (text: string, role: string, node: string, nowMs: number): Identity | NotIdentified => {
  const [jwt, seed] = [...text.matchAll(PART)].map(([, part = ""]) => part);
  if (jwt === undefined || seed === undefined) return not("the file has no user JWT and seed in it");
  const claimed = verifiedClaims(jwt, null, nowMs);
  if (isNotIdentified(claimed)) return claimed;
  if (claimed.name !== nameOf(role, node)) return not(`the user is "${claimed.name}", not "${nameOf(role, node)}"`);
  try {
    const keys = fromSeed(new TextEncoder().encode(seed));
    if (keys.getPublicKey() !== claimed.sub) return not("the seed is not that of the JWT's user");
    return { role, node, issuer: claimed.iss, jwt, sign: (statement) => keys.sign(statement) };
  } catch {
    return not("the seed is none");
  }
};

/** Somebody's word: what was said, by whom as they say, and their proof. */
export interface Signed {
  readonly jwt: string;
  readonly statement: Uint8Array;
  readonly signature: Uint8Array;
}

/** null when `role` of `node` has signed the statement, and the account vouches for them that vouches for `me`. */
export const lookForImpostor = (
  { jwt, statement, signature }: Signed,
  expected: { readonly role: string; readonly node: string },
  me: Identity,
  nowMs: number,
): NotIdentified | null => {
  const claimed = verifiedClaims(jwt, me.issuer, nowMs);
  if (isNotIdentified(claimed)) return claimed;
  const name = nameOf(expected.role, expected.node);
  if (claimed.name !== name) return not(`it is user "${claimed.name}", and "${name}" was expected`);
  return isSignedBy(claimed.sub, statement, signature) ? null : not("it has not signed what was said in its name");
};
