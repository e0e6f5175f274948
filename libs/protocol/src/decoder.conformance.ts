/** What every decoder of a binary message must stand, whoever sent the bytes. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { makeMutator, seededRandom } from "./mutation.conformance.ts";

/** Inputs of the fuzz loop for each decoder; FUZZ_RUNS asks for a longer one. */
const FUZZ_RUNS = Number(process.env["FUZZ_RUNS"] ?? 200_000);
const FUZZ_SEED = 0x60d317;
/** Valid messages that the fuzz loop starts from. */
const CORPUS = 200;
/** Valid messages that are cut at every length and flipped at every bit. */
const THOROUGH = 12;

export const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
export const positive = fc.integer({ min: 1, max: 0xffff_ffff });
/** 16 hex digits, many of them zero or f. */
export const wireId = fc
  .tuple(u32, u32)
  .map(([high, low]) => high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0"));

export interface DecoderUnderTest<A> {
  readonly valid: fc.Arbitrary<A>;
  readonly encode: (value: A) => Uint8Array;
  readonly decode: (bytes: Uint8Array) => A | { readonly kind: "malformed"; readonly reason: string };
  /** Corrects what guards the content (a checksum), so that the fuzz loop gets past it. */
  readonly repair?: (bytes: Uint8Array) => void;
  /** Whether one flipped bit anywhere must be noticed. */
  readonly noticesEveryBit: boolean;
  /** What part of the fuzz loop's inputs it gets, where one costs much more than a decoder's; default all. */
  readonly fuzzPart?: number;
}

const isMalformed = (result: unknown): result is { readonly kind: "malformed"; readonly reason: string } =>
  (result as { readonly kind: string }).kind === "malformed";

/** The same bytes, with others before and behind them in the same memory. */
const among = (bytes: Uint8Array, neighbour: number): Uint8Array => {
  const memory = new Uint8Array(bytes.length + 512).fill(neighbour);
  memory.set(bytes, 256);
  return memory.subarray(256, 256 + bytes.length);
};

export const decoderSuite = <A>(
  name: string,
  { valid, encode, decode, repair, noticesEveryBit, fuzzPart = 1 }: DecoderUnderTest<A>,
) =>
  describe(`${name}, whoever sent it`, () => {
    const fuzzRuns = Math.ceil(FUZZ_RUNS * fuzzPart);
    const corpus = (size: number): Uint8Array[] => fc.sample(valid, { numRuns: size, seed: FUZZ_SEED }).map(encode);

    /** Refused with a reason, or a value that is itself valid: encoded it decodes to the same again. */
    const standsUp = (bytes: Uint8Array): void => {
      const result = decode(bytes);
      if (isMalformed(result)) {
        if (result.reason === "") throw new Error("refused without a reason");
        return;
      }
      const again = decode(encode(result));
      if (isMalformed(again)) throw new Error(`accepted what it would not write: ${again.reason}`);
      expect(again).toEqual(result);
    };

    it("comes out as it went in", () => {
      fc.assert(
        fc.property(valid, (value) => {
          expect(decode(encode(value))).toEqual(value);
        }),
      );
    });

    it("does not depend on the memory around it", () => {
      fc.assert(
        fc.property(valid, (value) => {
          const bytes = encode(value);
          expect(decode(among(bytes, 0xff))).toEqual(decode(among(bytes, 0)));
          // Also when the lengths it names are wrong.
          expect(decode(among(bytes.subarray(0, -1), 0xff))).toEqual(decode(among(bytes.subarray(0, -1), 0)));
        }),
      );
    });

    it("is refused as random bytes of any length, and as nothing", () => {
      expect(isMalformed(decode(new Uint8Array(0)))).toBe(true);
      fc.assert(fc.property(fc.uint8Array({ maxLength: 4096 }), (bytes) => isMalformed(decode(bytes))));
    });

    it("is refused when it was cut short, at every length", () => {
      for (const bytes of corpus(THOROUGH)) {
        for (let length = 0; length < bytes.length; length += length < 1024 ? 1 : 509) {
          const cut = bytes.subarray(0, length);
          const result = decode(cut);
          if (!isMalformed(result)) standsUp(cut);
          if (noticesEveryBit) expect(isMalformed(result), `${length} of ${bytes.length} bytes`).toBe(true);
        }
      }
    });

    it(noticesEveryBit ? "is refused after any single bit was flipped" : "stands any single flipped bit", () => {
      for (const bytes of corpus(THOROUGH)) {
        const bits = bytes.length * 8;
        for (let bit = 0; bit < bits; bit += bit < 4096 ? 1 : 997) {
          bytes[bit >>> 3]! ^= 1 << (bit & 7);
          if (noticesEveryBit) expect(isMalformed(decode(bytes)), `bit ${bit} of ${bits}`).toBe(true);
          else standsUp(bytes);
          bytes[bit >>> 3]! ^= 1 << (bit & 7);
        }
      }
    });

    it(`never throws, and accepts nothing it would not write itself, in ${fuzzRuns} mutations`, () => {
      const random = seededRandom(FUZZ_SEED);
      const mutate = makeMutator(corpus(CORPUS), random);
      let accepted = 0;
      for (let run = 0; run < fuzzRuns; run++) {
        const bytes = mutate();
        if (repair !== undefined && random() < 0.8) repair(bytes);
        const result = decode(bytes);
        if (isMalformed(result)) continue;
        // Most accepted ones differ in plain numbers only; a part of them is looked at in full.
        if (accepted++ % 16 === 0) standsUp(bytes);
      }
      // A loop whose inputs are all refused at the first check tests nothing.
      expect(accepted).toBeGreaterThan(fuzzRuns / 1000);
    });
  });
