import { constants, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compress, decompress } from "./compression.ts";

const KINDS = ["zlib", "zstd"] as const;
const MIB = 1024 ** 2;
/** What a packet unpacks to at most, bytes. */
const PACKET_BYTES = 256 * 1024;
/** Time and memory that refusing a bomb may cost; unpacked it would be a thousand times as much. */
const BOMB_MS = 500;
const BOMB_BYTES = 64 * MIB;

const reasonOf = (result: Uint8Array | { readonly malformed: string }): string => {
  if (result instanceof Uint8Array) throw new Error(`it was unpacked to ${result.length} bytes`);
  return result.malformed;
};
/** Bytes as guests have them: runs, and noise. */
const content = fc
  .array(fc.tuple(fc.nat(255), fc.integer({ min: 1, max: 3000 }), fc.boolean()), { minLength: 1, maxLength: 8 })
  .map((parts) =>
    Buffer.concat(
      parts.map(([value, length, noisy]) =>
        noisy
          ? Buffer.from(Uint8Array.from({ length }, (_, i) => (value * (i + 7) * 2654435761) >>> 13))
          : Buffer.alloc(length, value),
      ),
    ),
  );
const levels = { zlib: fc.nat(9), zstd: fc.nat(20) } as const;

describe.each(KINDS)("a payload packed with %s", (kind) => {
  it("comes out as it went in, at every level", () => {
    fc.assert(
      fc.property(content, levels[kind], (bytes, level) => {
        const back = decompress(kind, compress(kind, level, bytes), bytes.length);
        expect(back instanceof Uint8Array && Buffer.compare(back, bytes)).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  it("is refused when it unpacks to more or to less than was declared", () => {
    fc.assert(
      fc.property(content, fc.integer({ min: -100, max: 100 }), (bytes, difference) => {
        fc.pre(difference !== 0 && bytes.length + difference > 0);
        expect(reasonOf(decompress(kind, compress(kind, 1, bytes), bytes.length + difference))).not.toBe("");
      }),
      { numRuns: 60 },
    );
  });

  it("is refused when nothing was declared, and when there is nothing", () => {
    expect(reasonOf(decompress(kind, compress(kind, 1, Buffer.alloc(10)), 0))).not.toBe("");
    expect(reasonOf(decompress(kind, compress(kind, 1, Buffer.alloc(0)), 0))).not.toBe("");
    expect(reasonOf(decompress(kind, new Uint8Array(0), 10))).not.toBe("");
    expect(decompress(kind, new Uint8Array(0), 0)).toEqual(new Uint8Array(0));
  });

  it("is refused when bytes follow it, one or many, of any kind", () => {
    const packed = compress(kind, 1, Buffer.alloc(5000, 3));
    for (const tail of [Uint8Array.of(0), Buffer.alloc(100), packed, compress(kind, 1, Buffer.alloc(0))])
      expect(reasonOf(decompress(kind, Buffer.concat([packed, tail]), 5000))).not.toBe("");
  });

  it("is refused when it stands in two parts that only together have the declared length", () => {
    const halves = Buffer.concat([compress(kind, 1, Buffer.alloc(2500, 1)), compress(kind, 1, Buffer.alloc(2500, 2))]);
    expect(reasonOf(decompress(kind, halves, 5000))).not.toBe("");
  });

  it("is refused when it was cut short, at every length", () => {
    const packed = compress(kind, 1, Buffer.from("the quick brown fox".repeat(40)));
    for (let length = 0; length < packed.length; length++)
      expect(reasonOf(decompress(kind, packed.subarray(0, length), 19 * 40))).not.toBe("");
  });

  it("never throws, and never gives other than the declared length, whatever bit was flipped", () => {
    const bytes = Buffer.from("the quick brown fox".repeat(20));
    const packed = Buffer.from(compress(kind, 3, bytes));
    for (let bit = 0; bit < packed.length * 8; bit++) {
      packed[bit >> 3]! ^= 1 << (bit & 7);
      const result = decompress(kind, packed, bytes.length);
      if (result instanceof Uint8Array) expect(result.length).toBe(bytes.length);
      packed[bit >> 3]! ^= 1 << (bit & 7);
    }
  });

  it("never throws on random bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(PACKET_BYTES), (bytes, declared) => {
        const result = decompress(kind, bytes, declared);
        if (result instanceof Uint8Array) expect(result.length).toBe(declared);
      }),
    );
  });

  it("is a bomb that does not go off: memory and time follow the declared length", () => {
    const bomb = kind === "zlib" ? deflateSync(Buffer.alloc(256 * MIB)) : zstdCompressSync(Buffer.alloc(256 * MIB));
    expect(bomb.length).toBeLessThan(512 * 1024);
    const before = process.memoryUsage.rss();
    const started = performance.now();
    for (const declared of [1, 4096, PACKET_BYTES]) expect(reasonOf(decompress(kind, bomb, declared))).not.toBe("");
    expect(performance.now() - started).toBeLessThan(BOMB_MS);
    expect(process.memoryUsage.rss() - before).toBeLessThan(BOMB_BYTES);
  });
});

describe("a payload", () => {
  it("of another packing is refused", () => {
    const bytes = Buffer.alloc(1000, 5);
    for (const packed of [deflateRawSync(bytes), gzipSync(bytes), zstdCompressSync(bytes), bytes])
      expect(reasonOf(decompress("zlib", packed, 1000))).not.toBe("");
    for (const packed of [deflateSync(bytes), gzipSync(bytes), bytes])
      expect(reasonOf(decompress("zstd", packed, 1000))).not.toBe("");
  });

  it("that is not packed is as long as was declared, or refused", () => {
    const bytes = Buffer.alloc(1000, 5);
    expect(decompress("none", bytes, 1000)).toBe(bytes);
    for (const declared of [0, 999, 1001]) expect(reasonOf(decompress("none", bytes, declared))).not.toBe("");
  });

  it("of zstd that wants a window larger than any packet is refused before the window is made", () => {
    // Without its length the frame names a window; of 8 MiB here, whatever it holds.
    const wide = Buffer.from("28b52ffd" + "00" + "68" + "010000", "hex");
    const narrow = Buffer.from("28b52ffd" + "00" + "40" + "010000", "hex");
    expect(reasonOf(decompress("zstd", narrow, 1000))).toMatch(/unpacks to 0 bytes/);
    expect(reasonOf(decompress("zstd", wide, 1000))).toMatch(/too much memory/);
  });

  it("of zstd is unpacked at every level and with every window that our own side uses", () => {
    const bytes = Buffer.alloc(PACKET_BYTES);
    for (let i = 0; i < bytes.length; i += 3) bytes[i] = (i * 2654435761) >>> 20;
    for (let level = 0; level <= 20; level++) {
      const back = decompress("zstd", compress("zstd", level, bytes), bytes.length);
      expect(back instanceof Uint8Array && Buffer.compare(back, bytes), `level ${level}`).toBe(0);
    }
    const options = { params: { [constants.ZSTD_c_checksumFlag]: 1 } };
    expect(decompress("zstd", zstdCompressSync(bytes, options), bytes.length)).toEqual(bytes);
  });
});
