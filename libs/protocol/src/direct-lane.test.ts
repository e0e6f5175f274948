import fc from "fast-check";
import { expect, it } from "vitest";
import { decoderSuite, positive, wireId } from "./decoder.conformance.ts";
import {
  decodeHello,
  encodeHello,
  LANE_CLAIM_BYTES,
  LANE_FRAME_BYTES_MAX,
  LANE_PURPOSES,
  type LaneHello,
} from "./direct-lane.ts";
import { CHANNELS_MAX } from "./limits.ts";

const hello: fc.Arbitrary<LaneHello> = fc.record({
  migration: wireId,
  epoch: positive,
  purpose: fc.constantFrom(...LANE_PURPOSES),
  channel: fc.nat(CHANNELS_MAX - 1),
  token: wireId,
  proof: fc.uint8Array({ minLength: 32, maxLength: 32 }),
});
const encode = ({ proof, ...claim }: LaneHello): Uint8Array => {
  const bytes = encodeHello(claim);
  bytes.set(proof, LANE_CLAIM_BYTES);
  return bytes;
};

decoderSuite<LaneHello>("a hello", {
  valid: hello,
  encode,
  decode: (bytes) => decodeHello(bytes) as LaneHello & { readonly kind: never },
  // The proof, which needs the secret, notices it.
  noticesEveryBit: false,
});

it("a frame holds any packet that fits a message of NATS's default size", () => {
  expect(LANE_FRAME_BYTES_MAX).toBeGreaterThan(256 * 1024);
  expect(LANE_FRAME_BYTES_MAX).toBeLessThan(1024 ** 2);
});
