/**
 * How the two hosts of an attempt agree on its key, before a byte moves (R9). The broker carries the messages, and could be anybody.
 *
 *     loader of the destination                                     RAM sender of the source
 *       draws an X25519 key pair D
 *       |-- D, user JWT, signature(attempt, D) ------------------------->| is it the loader of that node, of our account?
 *       |                                                                | draws a key pair S of its own
 *       |<------------------- S, user JWT, signature(attempt, S, D) -----|
 *       is it the RAM sender of that node, and has it seen this D?
 *     both: HKDF(X25519(D, S); attempt, S, D)
 *
 * Key pairs live for the agreement only: who learns a host's credentials later opens nothing of what went before.
 */
import { createPublicKey, diffieHellman, generateKeyPairSync, type KeyObject } from "node:crypto";
import type { KeyAnswer, KeyRequest } from "@godwit/protocol";
import { type Identity, lookForImpostor, type NotIdentified } from "./identity.ts";
import { type Attempt, attemptKey } from "./key-schedule.ts";

/** Who agrees, at either side. */
const SOURCE_ROLE = "ram-sender";
const DESTINATION_ROLE = "loader";

/** Half of an agreement: secret, and never stored. */
export interface KeyHalf {
  /** As it travels: 32 bytes in hex. */
  readonly publicKey: string;
  readonly secret: KeyObject;
}

export const drawKeyHalf = (): KeyHalf => {
  const { publicKey, privateKey } = generateKeyPairSync("x25519");
  const { x = "" } = publicKey.export({ format: "jwk" });
  return { publicKey: Buffer.from(x, "base64url").toString("hex"), secret: privateKey };
};

/** Null for a public key with which every secret would be the same one. */
const sharedSecret = ({ secret }: KeyHalf, theirs: string): Uint8Array | null => {
  const x = Buffer.from(theirs, "hex").toString("base64url");
  try {
    const publicKey = createPublicKey({ key: { kty: "OKP", crv: "X25519", x }, format: "jwk" });
    return diffieHellman({ privateKey: secret, publicKey });
  } catch {
    return null;
  }
};

/**
 * What is signed. It begins with a byte that no UTF-8 text has: the same nkey signs whatever text a NATS server asks for when an actor
 * connects, and a server that asked for one of these would have the actor's word for a key of its own.
 */
const statementOf = (attempt: Attempt, role: string, publicKey: string, answered: string): Uint8Array => {
  const { migration, epoch, source, destination } = attempt;
  const fields = ["godwit key agreement 1", role, migration, epoch, source, destination, publicKey, answered];
  return Buffer.concat([Uint8Array.of(0xff), Buffer.from(fields.join("\n"))]);
};

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

export const requestKey = (attempt: Attempt, half: KeyHalf, me: Identity): KeyRequest => ({
  migration: attempt.migration as KeyRequest["migration"],
  epoch: attempt.epoch as KeyRequest["epoch"],
  destination: attempt.destination,
  "public-key": half.publicKey,
  jwt: me.jwt,
  signature: hexOf(me.sign(statementOf(attempt, DESTINATION_ROLE, half.publicKey, ""))),
});

/** The source's answer, and the key. */
export const answerKey = (
  attempt: Attempt,
  request: KeyRequest,
  me: Identity,
  nowMs: number,
): { readonly answer: KeyAnswer; readonly key: Uint8Array } | NotIdentified => {
  const theirs = request["public-key"];
  const signed = {
    jwt: request.jwt,
    statement: statementOf(attempt, DESTINATION_ROLE, theirs, ""),
    signature: Buffer.from(request.signature, "hex"),
  };
  const impostor = lookForImpostor(signed, { role: DESTINATION_ROLE, node: attempt.destination }, me, nowMs);
  if (impostor !== null) return impostor;
  const half = drawKeyHalf();
  const secret = sharedSecret(half, theirs);
  if (secret === null) return { notIdentified: "its public key is none" };
  return {
    answer: {
      "public-key": half.publicKey,
      jwt: me.jwt,
      signature: hexOf(me.sign(statementOf(attempt, SOURCE_ROLE, half.publicKey, theirs))),
    },
    key: attemptKey(secret, attempt, { source: half.publicKey, destination: theirs }),
  };
};

/** The key, at the destination; `half` is that of the request. */
export const concludeKey = (
  attempt: Attempt,
  half: KeyHalf,
  answer: KeyAnswer,
  me: Identity,
  nowMs: number,
): Uint8Array | NotIdentified => {
  const theirs = answer["public-key"];
  const signed = {
    jwt: answer.jwt,
    statement: statementOf(attempt, SOURCE_ROLE, theirs, half.publicKey),
    signature: Buffer.from(answer.signature, "hex"),
  };
  const impostor = lookForImpostor(signed, { role: SOURCE_ROLE, node: attempt.source }, me, nowMs);
  if (impostor !== null) return impostor;
  const secret = sharedSecret(half, theirs);
  if (secret === null) return { notIdentified: "its public key is none" };
  return attemptKey(secret, attempt, { source: theirs, destination: half.publicKey });
};
