/** Tokens that this destination has given out and nobody has used: each is good for one connection, of one attempt, purpose and channel, for a few seconds. */
import { decodeHello, LANE_SECRET_BYTES, type LaneClaim } from "@godwit/protocol";
import { isTrueHello } from "./proof.ts";

/** From the offer to the hello, ms: a worker tries several addresses, for a second each, and hosts are busy. */
export const TOKEN_LIFE_MS = 15_000;
/** Unused tokens of one grantor: each of 255 channels may have asked, and asked again. What comes on top is refused. */
export const TOKENS_MAX = 512;

export interface Granted<A> {
  readonly grantor: A;
  readonly claim: Omit<LaneClaim, "token">;
}
interface Token<A> extends Granted<A> {
  readonly secret: Buffer;
  readonly until: number;
}
export interface Tokens<A> {
  /** Null: too many are unused. */
  readonly issue: (granted: Granted<A>, now: number) => { readonly token: string; readonly secret: Buffer } | null;
  /** Of a token that may still be used; TLS needs it before the hello. */
  readonly secretOf: (token: string, now: number) => Buffer | null;
  /** Uses the token that a hello names and proves. Otherwise: why not. */
  readonly redeem: (
    hello: Uint8Array,
    now: number,
  ) => (Granted<A> & { readonly secret: Buffer }) | { readonly refused: string };
  /** What was granted and not used is good for nothing any more. */
  readonly revoke: (grantor: A) => void;
}

/** `random`: bytes that nobody can guess. Times are ms, of whatever clock. */
export const makeTokens = <A>(random: (bytes: number) => Buffer): Tokens<A> => {
  const tokens = new Map<string, Token<A>>();
  const valid = (token: string, now: number): Token<A> | undefined => {
    const found = tokens.get(token);
    return found === undefined || now > found.until ? undefined : found;
  };
  const forgetIf = (isGone: (token: Token<A>) => boolean): void => {
    for (const [id, token] of tokens) if (isGone(token)) tokens.delete(id);
  };
  return {
    issue: (granted, now) => {
      forgetIf(({ until }) => now > until);
      let unused = 0;
      for (const { grantor } of tokens.values()) if (grantor === granted.grantor) unused++;
      if (unused >= TOKENS_MAX) return null;
      const token = random(8).toString("hex");
      const secret = random(LANE_SECRET_BYTES);
      tokens.set(token, { ...granted, secret, until: now + TOKEN_LIFE_MS });
      return { token, secret };
    },
    secretOf: (token, now) => valid(token, now)?.secret ?? null,
    redeem: (bytes, now) => {
      const hello = decodeHello(bytes);
      if ("kind" in hello) return { refused: `it says no hello (${hello.reason})` };
      const found = valid(hello.token, now);
      if (found === undefined) return { refused: "its token was never given out, was used, or is too old" };
      if (!isTrueHello(bytes, found.secret)) return { refused: "it does not know its token's secret" };
      const { migration, epoch, purpose, channel } = found.claim;
      if (hello.migration !== migration || hello.epoch !== epoch) return { refused: "its token is another attempt's" };
      if (hello.purpose !== purpose || hello.channel !== channel) return { refused: "its token is another channel's" };
      tokens.delete(hello.token);
      return found;
    },
    revoke: (grantor) => forgetIf((token) => token.grantor === grantor),
  };
};
