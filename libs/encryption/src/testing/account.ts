/** A NATS account of a test's own, which issues users as `nsc` and the like do: JWTs and credentials files. */
import { createAccount, createUser, type KeyPair } from "@nats-io/nkeys";

const encoded = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");

export interface JwtChange {
  readonly header?: object;
  readonly claims?: object;
  readonly nats?: object;
  /** Who signs; default: the account. */
  readonly signer?: KeyPair;
}

export interface Account {
  readonly publicKey: string;
  readonly userJwt: (name: string, user: KeyPair, change?: JwtChange) => string;
  /** The text of a credentials file. */
  readonly credentials: (name: string, change?: JwtChange) => string;
}

export const makeAccount = (): Account => {
  const account = createAccount();
  const userJwt: Account["userJwt"] = (name, user, { header = {}, claims = {}, nats = {}, signer = account } = {}) => {
    const body = {
      jti: "TEST",
      iat: Math.floor(Date.now() / 1000),
      iss: account.getPublicKey(),
      sub: user.getPublicKey(),
      name,
      nats: { pub: {}, sub: {}, subs: -1, data: -1, payload: -1, type: "user", version: 2, ...nats },
      ...claims,
    };
    const signed = `${encoded({ typ: "JWT", alg: "ed25519-nkey", ...header })}.${encoded(body)}`;
    return `${signed}.${Buffer.from(signer.sign(Buffer.from(signed))).toString("base64url")}`;
  };
  return {
    publicKey: account.getPublicKey(),
    userJwt,
    credentials: (name, change) => {
      const user = createUser();
      const seed = Buffer.from(user.getSeed()).toString();
      return credentialsText(userJwt(name, user, change), seed);
    },
  };
};

/** As `nsc` writes it. */
export const credentialsText = (jwt: string, seed: string): string => `-----BEGIN NATS USER JWT-----
${jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.
NKEYs are sensitive and should be treated as secrets.

-----BEGIN USER NKEY SEED-----
${seed}
------END USER NKEY SEED------

*************************************************************
`;
