import { crc32 } from "node:zlib";
import fc from "fast-check";
import { assert, describe, it } from "vitest";
import { joinCrc32, tailCrc32 } from "./crc32.ts";

const bytes = fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ minLength: 4000, maxLength: 5000 }));

describe("the crc32 of joined bytes", () => {
  it("follows from those of the parts, and that of the rest from the whole", () => {
    fc.assert(
      fc.property(bytes, bytes, (head, tail) => {
        const whole = crc32(tail, crc32(head));
        assert.strictEqual(joinCrc32(crc32(head), crc32(tail), tail.length), whole);
        assert.strictEqual(tailCrc32(whole, crc32(head), tail.length), crc32(tail));
      }),
    );
  });

  it("is right for slices of every usual length, one after the other", () => {
    let whole = 0;
    let joined = 0;
    for (const length of [262_144, 262_144, 1, 0, 65_536, 1_048_576, 262_143]) {
      const slice = Buffer.alloc(length, length & 0xff);
      whole = crc32(slice, whole);
      joined = joinCrc32(joined, crc32(slice), length);
      assert.strictEqual(joined, whole);
    }
  });

  it("knows lengths beyond 32 bits: zeros of 2^33 bytes shift like eight times 2^30", () => {
    const head = crc32(Uint8Array.of(1, 2, 3));
    let steps = head;
    for (let step = 0; step < 8; step++) steps = joinCrc32(steps, 0, 2 ** 30);
    assert.strictEqual(joinCrc32(head, 0, 2 ** 33), steps);
  });
});
