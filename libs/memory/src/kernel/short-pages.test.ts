import { crc32 } from "node:zlib";
import { PAGE_BYTES, type ShortPage } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { makePagesRoom, unpackPages } from "./short-pages.ts";

const room = makePagesRoom();
const full = (byte: number): Uint8Array => new Uint8Array(PAGE_BYTES).fill(byte);
const concat = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => new Uint8Array(Buffer.concat(parts));

/** Pages 10, 11 and 20 to 23; 11 is zero. Page p of the destination is full of p. */
const packet = (short: ReadonlyArray<ShortPage>) => ({
  runs: Uint32Array.of(10, 2, 20, 4),
  pages: 6,
  zeroMap: Uint8Array.of(0b000010),
  short,
});
const readBase = (page: number, target: Uint8Array, at: number): void => void target.fill(page, at, at + PAGE_BYTES);
/** Changes the third byte to 99. */
const DELTA = Uint8Array.of(2, 1, 99);
const changedTo99 = (byte: number): Uint8Array => {
  const page = full(byte);
  page[2] = 99;
  return page;
};

describe("a payload with short pages", () => {
  it("is unpacked to whole pages: those that are, copies of them, and deltas of what the destination has", () => {
    const short: ReadonlyArray<ShortPage> = [
      { how: "copy", page: 2, of: 0 },
      { how: "delta", page: 4, bytes: DELTA.length, base: crc32(full(22)) },
      { how: "delta", page: 5, bytes: 0, base: crc32(full(23)) },
    ];
    const payload = concat(full(1), full(3), DELTA);
    const unpacked = unpackPages(packet(short), payload, readBase, room);
    expect(unpacked).toEqual(concat(full(1), full(1), full(3), changedTo99(22), full(23)));
  });

  it("is the payload itself, uncopied, where no page is short", () => {
    const payload = concat(full(1), full(2), full(3), full(4), full(5));
    expect(unpackPages(packet([]), payload, null, room)).toBe(payload);
  });

  it("names every page whose base is another one", () => {
    const short: ReadonlyArray<ShortPage> = [
      { how: "delta", page: 0, bytes: DELTA.length, base: crc32(full(9)) },
      { how: "delta", page: 2, bytes: DELTA.length, base: crc32(full(20)) },
      { how: "delta", page: 5, bytes: DELTA.length, base: crc32(full(9)) },
    ];
    const payload = concat(DELTA, DELTA, full(3), full(4), DELTA);
    expect(unpackPages(packet(short), payload, readBase, room)).toEqual({ differing: Uint8Array.of(0b100001) });
  });

  it("is refused for a delta that is none, and for any where there is nothing to change", () => {
    const short: ReadonlyArray<ShortPage> = [{ how: "delta", page: 0, bytes: 3, base: crc32(full(10)) }];
    const rest = [full(2), full(3), full(4), full(5)];
    const none = concat(Uint8Array.of(2, 9, 99), ...rest);
    expect(unpackPages(packet(short), none, readBase, room)).toMatchObject({ malformed: expect.any(String) });
    const right = concat(DELTA, ...rest);
    expect(unpackPages(packet(short), right, null, room)).toMatchObject({ malformed: expect.any(String) });
    expect(unpackPages(packet(short), right, readBase, room)).toBeInstanceOf(Uint8Array);
  });
});
