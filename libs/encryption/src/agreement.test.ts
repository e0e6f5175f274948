import type { KeyAnswer, KeyRequest } from "@godwit/protocol";
import { createUser } from "@nats-io/nkeys";
import { assert, describe, it } from "vitest";
import { answerKey, concludeKey, drawKeyHalf, requestKey } from "./agreement.ts";
import { type Identity, isNotIdentified, parseIdentity } from "./identity.ts";
import { attemptKey, subkey } from "./key-schedule.ts";
import { makeAccount } from "./testing/account.ts";

const NOW = Date.now();
const ATTEMPT = { migration: "0123456789abcdef", epoch: 2, source: "a", destination: "b" };
const account = makeAccount();
const identity = (role: string, node: string, of = account): Identity => {
  const found = parseIdentity(of.credentials(`${role}.${node}`), role, node, NOW);
  if (isNotIdentified(found)) throw new Error(found.notIdentified);
  return found;
};
const sender = identity("ram-sender", "a");
const loader = identity("loader", "b");

const answerTo = (request: KeyRequest, me = sender, attempt = ATTEMPT) => {
  const made = answerKey(attempt, request, me, NOW);
  if (isNotIdentified(made)) throw new Error(made.notIdentified);
  return made;
};
const refused = (result: object): string => {
  if (!isNotIdentified(result)) throw new Error("it was taken");
  return result.notIdentified;
};

describe("two hosts that agree on a key", () => {
  it("have the same one, and no other attempt has it", () => {
    const keys = [ATTEMPT, ATTEMPT, { ...ATTEMPT, epoch: 3 }].map((attempt) => {
      const half = drawKeyHalf();
      const { answer, key } = answerTo(requestKey(attempt, half, loader), sender, attempt);
      assert.deepEqual(concludeKey(attempt, half, answer, loader, NOW), key);
      assert.strictEqual(key.length, 32);
      return Buffer.from(key).toString("hex");
    });
    assert.strictEqual(new Set(keys).size, 3);
  });

  it("refuse each other's word about another attempt, or in another role", () => {
    const half = drawKeyHalf();
    const request = requestKey(ATTEMPT, half, loader);
    for (const other of [{ migration: "f".repeat(16) }, { epoch: 3 }, { source: "c" }])
      assert.match(refused(answerKey({ ...ATTEMPT, ...other }, request, sender, NOW)), /has not signed/);
    assert.match(refused(answerKey({ ...ATTEMPT, destination: "c" }, request, sender, NOW)), /"loader.c" was expected/);
    // The loader of b, which is no RAM sender, answers itself.
    const { answer } = answerTo(request, { ...sender, jwt: loader.jwt, sign: loader.sign });
    assert.match(refused(concludeKey(ATTEMPT, half, answer, loader, NOW)), /"ram-sender.a" was expected/);
  });

  it("do not let somebody between them have a key of their own with either", () => {
    const [half, between] = [drawKeyHalf(), drawKeyHalf()];
    const request = requestKey(ATTEMPT, half, loader);
    const forged: KeyRequest = { ...request, "public-key": between.publicKey };
    assert.match(refused(answerKey(ATTEMPT, forged, sender, NOW)), /has not signed/);
    const { answer } = answerTo(request);
    const swapped: KeyAnswer = { ...answer, "public-key": between.publicKey };
    assert.match(refused(concludeKey(ATTEMPT, half, swapped, loader, NOW)), /has not signed/);
    // With an account of their own they can sign whatever they like.
    const foreign = makeAccount();
    const stranger = identity("ram-sender", "a", foreign);
    const own = answerTo(requestKey(ATTEMPT, half, identity("loader", "b", foreign)), stranger);
    assert.match(refused(concludeKey(ATTEMPT, half, own.answer, loader, NOW)), /was issued by/);
  });

  it("do not take an answer to an earlier request", () => {
    const [former, half] = [drawKeyHalf(), drawKeyHalf()];
    const { answer } = answerTo(requestKey(ATTEMPT, former, loader));
    assert.match(refused(concludeKey(ATTEMPT, half, answer, loader, NOW)), /has not signed/);
  });

  it("refuse a public key with which the secret would be known to all", () => {
    const zero = { ...drawKeyHalf(), publicKey: "00".repeat(32) };
    assert.match(refused(answerKey(ATTEMPT, requestKey(ATTEMPT, zero, loader), sender, NOW)), /public key is none/);
  });

  it("take no signature that a NATS server could have asked for: it gets the signature of any text", () => {
    const user = createUser();
    const asked: Uint8Array[] = [];
    const spy: Identity = {
      ...loader,
      sign: (statement) => {
        asked.push(statement);
        return user.sign(statement);
      },
    };
    requestKey(ATTEMPT, drawKeyHalf(), spy);
    answerKey(ATTEMPT, requestKey(ATTEMPT, drawKeyHalf(), loader), { ...sender, sign: spy.sign }, NOW);
    assert.lengthOf(asked, 2);
    for (const statement of asked)
      assert.throws(() => new TextDecoder("utf-8", { fatal: true }).decode(statement), /not valid/);
  });
});

describe("the key schedule", () => {
  const secret = new Uint8Array(32).fill(1);
  const publicKeys = { source: "aa".repeat(32), destination: "bb".repeat(32) };
  const hex = (key: Uint8Array) => Buffer.from(key).toString("hex");

  it("gives another key for each thing that it depends on", () => {
    const base = hex(attemptKey(secret, ATTEMPT, publicKeys));
    const others = [
      attemptKey(new Uint8Array(32).fill(2), ATTEMPT, publicKeys),
      ...[{ migration: "1".repeat(16) }, { epoch: 3 }, { source: "c" }, { destination: "c" }].map((other) =>
        attemptKey(secret, { ...ATTEMPT, ...other }, publicKeys),
      ),
      attemptKey(secret, ATTEMPT, { ...publicKeys, source: "cc".repeat(32) }),
      attemptKey(secret, ATTEMPT, { ...publicKeys, destination: "cc".repeat(32) }),
    ];
    assert.strictEqual(new Set([base, ...others.map(hex)]).size, others.length + 1);
    const [salt, other] = [new Uint8Array(16), new Uint8Array(16).fill(1)];
    const subkeys = [subkey(secret, salt, "ram"), subkey(secret, salt, "devices"), subkey(secret, other, "ram")];
    assert.strictEqual(new Set(subkeys.map(hex)).size, 3);
  });

  it("is HKDF as others have it (RFC 5869, by another implementation): two versions of godwit must have one key", () => {
    assert.strictEqual(hex(attemptKey(secret, ATTEMPT, publicKeys)).slice(0, 16), "7f26fe25003aa507");
    assert.strictEqual(hex(subkey(secret, new Uint8Array(16), "ram")).slice(0, 16), "039551ab7129cbf2");
  });
});
