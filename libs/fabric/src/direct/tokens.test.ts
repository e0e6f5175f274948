import { randomBytes } from "node:crypto";
import { describe, expect, it } from "vitest";
import { helloOf, isTrueWelcome, welcomeOf } from "./proof.ts";
import { makeTokens, TOKEN_LIFE_MS, TOKENS_MAX } from "./tokens.ts";

const CLAIM = { migration: "00000000000000aa", epoch: 3, purpose: "ram", channel: 1 } as const;

const issued = () => {
  const tokens = makeTokens<string>(randomBytes);
  const { token, secret } = tokens.issue({ grantor: "session", claim: CLAIM }, 0)!;
  return { tokens, token, secret };
};

describe("a token", () => {
  it("is good for one connection", () => {
    const { tokens, token, secret } = issued();
    const hello = helloOf({ ...CLAIM, token }, secret);
    expect(tokens.redeem(hello, 1)).toMatchObject({ grantor: "session", claim: CLAIM });
    expect(tokens.redeem(hello, 2)).toEqual({ refused: "its token was never given out, was used, or is too old" });
    expect(tokens.secretOf(token, 2)).toBeNull();
  });

  it("is good for a while, and not longer", () => {
    const { tokens, token, secret } = issued();
    expect(tokens.redeem(helloOf({ ...CLAIM, token }, secret), TOKEN_LIFE_MS + 1)).toHaveProperty("refused");
    expect(tokens.secretOf(token, TOKEN_LIFE_MS + 1)).toBeNull();
    expect(tokens.redeem(helloOf({ ...CLAIM, token }, secret), TOKEN_LIFE_MS)).toMatchObject({ grantor: "session" });
  });

  it("is not used up by somebody who does not know its secret", () => {
    const { tokens, token, secret } = issued();
    expect(tokens.redeem(helloOf({ ...CLAIM, token }, randomBytes(32)), 0)).toEqual({
      refused: "it does not know its token's secret",
    });
    expect(tokens.redeem(helloOf({ ...CLAIM, token }, secret), 0)).toMatchObject({ grantor: "session" });
  });

  it.each([
    ["migration", { migration: "00000000000000ab" }, "attempt's"],
    ["epoch", { epoch: 4 }, "attempt's"],
    ["purpose", { purpose: "urgent" }, "channel's"],
    ["channel", { channel: 2 }, "channel's"],
  ] as const)("is good for no other %s", (_, change, whose) => {
    const { tokens, token, secret } = issued();
    expect(tokens.redeem(helloOf({ ...CLAIM, ...change, token }, secret), 0)).toEqual({
      refused: `its token is another ${whose}`,
    });
  });

  it("is not guessed, and a hello that was changed is none", () => {
    const { tokens, token, secret } = issued();
    expect(tokens.redeem(helloOf({ ...CLAIM, token: "0".repeat(16) }, secret), 0)).toHaveProperty("refused");
    const hello = helloOf({ ...CLAIM, token }, secret);
    for (let bit = 0; bit < hello.length * 8; bit++) {
      const changed = hello.slice();
      changed[bit >>> 3]! ^= 1 << (bit & 7);
      expect(tokens.redeem(changed, 0)).toHaveProperty("refused");
    }
    expect(tokens.redeem(hello.subarray(1), 0)).toHaveProperty("refused");
  });

  it("is worth nothing any more once its session is gone", () => {
    const { tokens, token, secret } = issued();
    tokens.revoke("another");
    expect(tokens.secretOf(token, 0)).toEqual(secret);
    tokens.revoke("session");
    expect(tokens.redeem(helloOf({ ...CLAIM, token }, secret), 0)).toHaveProperty("refused");
  });
});

describe("the tokens of one session", () => {
  it("are limited, until they are used or old, and others' are not", () => {
    const tokens = makeTokens<string>(randomBytes);
    for (let i = 0; i < TOKENS_MAX; i++) expect(tokens.issue({ grantor: "greedy", claim: CLAIM }, 0)).not.toBeNull();
    expect(tokens.issue({ grantor: "greedy", claim: CLAIM }, 0)).toBeNull();
    expect(tokens.issue({ grantor: "modest", claim: CLAIM }, 0)).not.toBeNull();
    expect(tokens.issue({ grantor: "greedy", claim: CLAIM }, TOKEN_LIFE_MS + 1)).not.toBeNull();
  });
});

describe("the welcome", () => {
  it("is the destination's own word to this very hello", () => {
    const { token, secret } = issued();
    const hello = helloOf({ ...CLAIM, token }, secret);
    expect(isTrueWelcome(welcomeOf(hello, secret), hello, secret)).toBe(true);
    expect(isTrueWelcome(welcomeOf(hello, randomBytes(32)), hello, secret)).toBe(false);
    expect(isTrueWelcome(welcomeOf(helloOf({ ...CLAIM, token, channel: 2 }, secret), secret), hello, secret)).toBe(
      false,
    );
    // What the worker itself has said.
    expect(isTrueWelcome(hello.slice(32), hello, secret)).toBe(false);
  });
});
