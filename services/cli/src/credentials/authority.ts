/**
 * The keys that NATS trusts, and the signed words (JWT) made with them: an operator, who vouches for an account, which vouches for
 * users. Servers know the operator and the account; a user shows its own JWT, so one that is made later needs no word to any server.
 */
import { type Identity, type PermissionOptions, permissionsOf, userOf } from "@godwit/protocol";
import {
  createAccount,
  createOperator,
  createUser,
  decode,
  encodeAccount,
  encodeOperator,
  encodeUser,
  fmtCreds,
  fromSeed,
  type KeyPair,
} from "@nats-io/jwt";

/** Private keys, as text: whoever has them is whoever he likes. */
export interface Seeds {
  readonly operator: string;
  readonly account: string;
  /** NATS's own account, for what servers say to each other; nobody has a user in it. */
  readonly system: string;
}

/** Users whose JWTs count no more, by public key, with the second (since 1970) up to which they were made. */
export type Revocations = Readonly<Record<string, number>>;

/** The operator's word, and NATS's own account: made once, since a running server takes no other. */
export interface Vouchers {
  readonly operatorJwt: string;
  readonly systemJwt: string;
}

/** What servers are told. */
export interface Trust extends Vouchers {
  readonly systemAccount: string;
  readonly account: string;
  readonly accountJwt: string;
}

const text = new TextDecoder();
const bytes = new TextEncoder();
const seedOf = (pair: KeyPair): string => text.decode(pair.getSeed());
const pairOf = (seed: string): KeyPair => fromSeed(bytes.encode(seed.trim()));

export const makeSeeds = (): Seeds => ({
  operator: seedOf(createOperator()),
  account: seedOf(createAccount()),
  system: seedOf(createAccount()),
});

/**
 * What the account may use; -1 is NATS's "no limit", and what is not said counts as none at all. The buckets have limits of their own,
 * and a server has its store's. Nothing goes to, or comes from, another account.
 */
const LIMITS = {
  ...{ conn: -1, leaf: -1, subs: -1, data: -1, payload: -1, imports: 0, exports: 0, wildcards: true },
  ...{ mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 },
};

export const vouch = async (seeds: Seeds): Promise<Vouchers> => {
  const [operator, system] = [pairOf(seeds.operator), pairOf(seeds.system)];
  return {
    operatorJwt: await encodeOperator("godwit", operator, { system_account: system.getPublicKey() }),
    systemJwt: await encodeAccount("SYS", system, {}, { signer: operator }),
  };
};

export const trustOf = async (seeds: Seeds, vouchers: Vouchers, revocations: Revocations): Promise<Trust> => {
  const account = pairOf(seeds.account);
  const content = { limits: LIMITS, revocations: { ...revocations } };
  return {
    ...vouchers,
    systemAccount: pairOf(seeds.system).getPublicKey(),
    account: account.getPublicKey(),
    accountJwt: await encodeAccount("godwit", account, content, { signer: pairOf(seeds.operator) }),
  };
};

const NS_PER_MS = 1_000_000;

/** The content of a credentials file: a new user, its JWT and its private key. */
export const issueUser = async (
  seeds: Seeds,
  identity: Identity,
  options: PermissionOptions = {},
): Promise<Uint8Array> => {
  const pair = createUser();
  const { publish, subscribe, responses } = permissionsOf(identity, options);
  const jwt = await encodeUser(userOf(identity), pair, pairOf(seeds.account), {
    // An empty list would allow everything.
    pub: publish.length > 0 ? { allow: [...publish] } : { deny: [">"] },
    sub: subscribe.length > 0 ? { allow: [...subscribe] } : { deny: [">"] },
    ...(responses === undefined ? {} : { resp: { max: responses.max, ttl: responses.ms * NS_PER_MS } }),
    allowed_connection_types: ["STANDARD"],
  });
  return fmtCreds(jwt, pair);
};

/** The user's public key; throws when it is no credentials file. */
export const userKeyOf = (credentials: Uint8Array): string => {
  const jwt = /-----BEGIN NATS USER JWT-----\s+([\w.-]+)\s/.exec(text.decode(credentials))?.[1];
  if (jwt === undefined) throw new Error("it holds no user JWT");
  return decode(jwt).sub;
};
