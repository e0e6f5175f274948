import { createUser } from "@nats-io/nkeys";
import { assert, describe, it } from "vitest";
import { type Identity, isNotIdentified, lookForImpostor, parseIdentity } from "./identity.ts";
import { credentialsText, type JwtChange, makeAccount } from "./testing/account.ts";

const NOW = Date.now();
const SECONDS = Math.floor(NOW / 1000);
const account = makeAccount();
const me = (): Identity => {
  const found = parseIdentity(account.credentials("loader.b"), "loader", "b", NOW);
  if (isNotIdentified(found)) throw new Error(found.notIdentified);
  return found;
};
const refusalOf = (text: string): string => {
  const found = parseIdentity(text, "loader", "b", NOW);
  if (!isNotIdentified(found)) throw new Error("it was taken");
  return found.notIdentified;
};

const WRONG: ReadonlyArray<readonly [what: string, change: JwtChange, reason: RegExp]> = [
  ["signed by another account", { signer: createUser() }, /signature of its user JWT is wrong/],
  ["of another algorithm", { header: { alg: "none" } }, /not signed as NATS signs/],
  ["of an operator", { nats: { type: "operator" } }, /not a user's/],
  ["of version 1", { nats: { version: 1 } }, /not a user's/],
  ["issued by a user", { claims: { iss: createUser().getPublicKey() } }, /not a user's/],
  ["expired", { claims: { exp: SECONDS - 61 } }, /has expired at/],
  ["of tomorrow", { claims: { nbf: SECONDS + 3600 } }, /not valid before/],
  ["of a time that no calendar has", { claims: { nbf: 2 ** 52 } }, /not a user's/],
  ["a bearer token", { nats: { bearer_token: true } }, /bearer token/],
];

describe("an actor's own credentials", () => {
  it("say who it is, with or without an end, however lines end", () => {
    for (const exp of [0, SECONDS + 60, SECONDS - 30])
      for (const text of [account.credentials("loader.b", { claims: { exp } })])
        for (const shown of [text, text.replaceAll("\n", "\r\n")])
          assert.isFalse(isNotIdentified(parseIdentity(shown, "loader", "b", NOW)));
    assert.strictEqual(me().issuer, account.publicKey);
  });

  it.each(WRONG)("are refused with a JWT that is %s", (_, change, reason) => {
    assert.match(refusalOf(account.credentials("loader.b", change)), reason);
  });

  it("are refused when they are another's, or not whole", () => {
    for (const name of ["loader.a", "ram-sender.b", "loader", "loader.b.c", "xloader.b"])
      assert.match(refusalOf(account.credentials(name)), /^the user is ".+", not "loader.b"$/);
    const jwt = account.userJwt("loader.b", createUser());
    assert.match(refusalOf(credentialsText(jwt, Buffer.from(createUser().getSeed()).toString())), /seed is not that/);
    assert.match(refusalOf(credentialsText(jwt, "SUAAAA")), /seed is none/);
    assert.match(refusalOf(credentialsText("a.b.c", "SUAAAA")), /not signed/);
    assert.match(refusalOf(credentialsText("x".repeat(20_000), "SUAAAA")), /is none/);
    assert.match(refusalOf(""), /no user JWT and seed/);
    assert.match(refusalOf(jwt), /no user JWT and seed/);
  });
});

describe("somebody's word", () => {
  const statement = Buffer.from("what is said");
  const wordOf = (jwt: string, user = createUser(), said: Uint8Array = statement) => ({
    jwt,
    statement,
    signature: user.sign(said),
  });
  const lookAt = (signed: ReturnType<typeof wordOf>): string | undefined =>
    lookForImpostor(signed, { role: "ram-sender", node: "a" }, me(), NOW)?.notIdentified;

  it("counts when it is theirs, and their account is ours", () => {
    const user = createUser();
    assert.isUndefined(lookAt(wordOf(account.userJwt("ram-sender.a", user), user)));
  });

  it.each(WRONG)("does not count with a JWT that is %s", (_, change, reason) => {
    const user = createUser();
    assert.match(lookAt(wordOf(account.userJwt("ram-sender.a", user, change), user)) ?? "", reason);
  });

  it("does not count from others", () => {
    const user = createUser();
    const jwt = account.userJwt("ram-sender.a", user);
    assert.match(lookAt(wordOf(jwt, createUser())) ?? "", /has not signed/);
    assert.match(lookAt(wordOf(jwt, user, Buffer.from("something else"))) ?? "", /has not signed/);
    assert.match(lookAt(wordOf(account.userJwt("ram-sender.c", user), user)) ?? "", /"ram-sender.a" was expected/);
    assert.match(lookAt(wordOf(account.userJwt("loader.a", user), user)) ?? "", /"ram-sender.a" was expected/);
    const foreign = makeAccount();
    assert.match(lookAt(wordOf(foreign.userJwt("ram-sender.a", user), user)) ?? "", /was issued by/);
  });
});
