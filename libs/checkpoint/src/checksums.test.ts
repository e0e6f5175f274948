import fc from "fast-check";
import { assert, describe, it } from "vitest";
import { decodeChecksums, encodeChecksums } from "./checksums.ts";
import { MalformedCheckpoint } from "./malformed.ts";

const some = fc.array(
  fc.record({
    name: fc.string({ maxLength: 20 }),
    sums: fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 })).map((sums) => Uint32Array.from(sums)),
  }),
  { maxLength: 3 },
);

describe("a file of checksums", () => {
  it("gives back what was written", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), some, (fingerprint, blocks) => {
        assert.deepStrictEqual(decodeChecksums(encodeChecksums({ fingerprint, blocks })), { fingerprint, blocks });
      }),
    );
  });

  it("is refused when a byte of it has changed or is missing", () => {
    const file = encodeChecksums({ fingerprint: 1, blocks: [{ name: "ram0", sums: Uint32Array.of(1, 2, 3) }] });
    for (let at = 0; at < file.length; at++) {
      const changed = Buffer.from(file);
      changed[at]! ^= 1;
      assert.throws(() => decodeChecksums(changed), MalformedCheckpoint);
      assert.throws(() => decodeChecksums(file.subarray(0, at)), MalformedCheckpoint);
    }
  });
});
