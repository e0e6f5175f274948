/** How the two ends of a direct connection show each other that they know the token's secret, without saying it. */
import { createHmac, timingSafeEqual } from "node:crypto";
import { encodeHello, LANE_CLAIM_BYTES, LANE_PROOF_BYTES, type LaneClaim } from "@godwit/protocol";

/** Each end has a word of its own, so that neither's proof can be thrown back at it. */
const proofOf = (secret: Uint8Array, word: "hello" | "welcome", said: Uint8Array): Buffer =>
  createHmac("sha256", secret).update(`godwit direct lane ${word}\n`).update(said).digest();

const isEqual = (proof: Uint8Array, expected: Uint8Array): boolean =>
  proof.length === LANE_PROOF_BYTES && timingSafeEqual(proof, expected);

/** The whole hello of a worker. */
export const helloOf = (claim: LaneClaim, secret: Uint8Array): Uint8Array => {
  const hello = encodeHello(claim);
  hello.set(proofOf(secret, "hello", hello.subarray(0, LANE_CLAIM_BYTES)), LANE_CLAIM_BYTES);
  return hello;
};
/** In constant time. */
export const isTrueHello = (hello: Uint8Array, secret: Uint8Array): boolean =>
  isEqual(hello.subarray(LANE_CLAIM_BYTES), proofOf(secret, "hello", hello.subarray(0, LANE_CLAIM_BYTES)));

/** The destination's answer to this very hello. */
export const welcomeOf = (hello: Uint8Array, secret: Uint8Array): Uint8Array => proofOf(secret, "welcome", hello);
export const isTrueWelcome = (welcome: Uint8Array, hello: Uint8Array, secret: Uint8Array): boolean =>
  isEqual(welcome, welcomeOf(hello, secret));
