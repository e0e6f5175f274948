import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeMissingWords, digestOfBitmaps, encodeMissingWords, MISSING_WORDS_MAX } from "./missing-pages.ts";

describe("bitmaps of missing pages", () => {
  it("come in pieces as they were, whatever the pieces", () => {
    const words = fc.uint32Array({ minLength: 1, maxLength: 300 });
    fc.assert(
      fc.property(words, fc.integer({ min: 1, max: 64 }), (sent, piece) => {
        const got = new Uint32Array(sent.length);
        for (let at = 0; at < got.length; ) at += decodeMissingWords(encodeMissingWords(sent, at, piece), got, at)!;
        expect(got).toEqual(sent);
        expect(digestOfBitmaps([got])).toBe(digestOfBitmaps([sent]));
      }),
    );
  });

  it("have no more words in one answer than fit a message", () => {
    const answer = encodeMissingWords(new Uint32Array(MISSING_WORDS_MAX + 5), 0, Number.MAX_SAFE_INTEGER);
    expect(answer.length).toBe(MISSING_WORDS_MAX * 4);
  });

  it("are not taken from bytes that are no words, that are none, or that are more than there are", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.nat(8), (bytes, from) => {
        const words = new Uint32Array(8);
        const count = decodeMissingWords(bytes, words, from);
        const fits = bytes.length > 0 && bytes.length % 4 === 0 && from + bytes.length / 4 <= words.length;
        expect(count).toBe(fits ? bytes.length / 4 : null);
        if (!fits) expect(words.every((word) => word === 0)).toBe(true);
      }),
    );
  });

  it("sum up to something else in another order, or with another bit", () => {
    const one = Uint32Array.of(1, 2);
    const other = Uint32Array.of(3);
    expect(digestOfBitmaps([one, other])).not.toBe(digestOfBitmaps([other, one]));
    expect(digestOfBitmaps([one])).not.toBe(digestOfBitmaps([Uint32Array.of(1, 3)]));
  });
});
