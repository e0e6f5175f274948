import { PAGE_BYTES } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { applyXbzrle, encodeXbzrle } from "./xbzrle.ts";

const GUARD = 0xee;
/** Mutated deltas that the decoder gets. */
const FUZZ_RUNS = Number(process.env["FUZZ_RUNS"] ?? 100_000);

/** A page whose bytes follow from a seed; those of two seeds differ in most places. */
const pageOf = (seed: number): Uint8Array => {
  const page = new Uint8Array(PAGE_BYTES);
  for (let i = 0; i < PAGE_BYTES; i++) page[i] = Math.imul(Math.imul(i + 1, 0x9e3779b1) ^ seed, 0x85ebca6b) >>> 24;
  return page;
};
/** (where, how many bytes) of each change; many single bytes, ends and neighbours. */
const changes = fc.array(
  fc.tuple(
    fc.oneof(fc.nat(PAGE_BYTES - 1), fc.constantFrom(0, 1, 127, 128, 129, PAGE_BYTES - 2, PAGE_BYTES - 1)),
    fc.oneof(fc.constantFrom(1, 2, 3, 127, 128, 129), fc.nat(PAGE_BYTES)),
  ),
  { maxLength: 12 },
);
const changed = (base: Uint8Array, where: ReadonlyArray<readonly [number, number]>): Uint8Array => {
  const page = base.slice();
  for (const [at, bytes] of where)
    for (let i = at; i < Math.min(PAGE_BYTES, at + bytes); i++) page[i]! ^= 0x55 + (i & 1);
  return page;
};
const encoded = (base: Uint8Array, page: Uint8Array, bytesMax = PAGE_BYTES): Uint8Array | null => {
  const target = new Uint8Array(PAGE_BYTES + 64).fill(GUARD);
  const bytes = encodeXbzrle(base, page, target, bytesMax);
  if (bytes === null) return null;
  expect(target.subarray(bytes).every((byte) => byte === GUARD)).toBe(true);
  return target.slice(0, bytes);
};

describe("a delta", () => {
  it("makes the page of its base again, and nothing beside it", () => {
    fc.assert(
      fc.property(fc.integer(), changes, fc.nat(600), (seed, where, before) => {
        const base = pageOf(seed);
        const page = changed(base, where);
        const delta = encoded(base, page);
        if (delta === null) return;
        const room = new Uint8Array(before + PAGE_BYTES + 64).fill(GUARD);
        room.set(base, before);
        const bytes = new Uint8Array(before + delta.length + 64).fill(GUARD);
        bytes.set(delta, before);
        expect(applyXbzrle(bytes, before, before + delta.length, room, before)).toBe(true);
        expect(Buffer.compare(room.subarray(before, before + PAGE_BYTES), page)).toBe(0);
        expect(room.subarray(0, before).every((byte) => byte === GUARD)).toBe(true);
        expect(room.subarray(before + PAGE_BYTES).every((byte) => byte === GUARD)).toBe(true);
      }),
    );
  });

  it("is QEMU's XBZRLE: lengths of equal and of changed bytes in turn, the last equal ones unnamed", () => {
    const base = new Uint8Array(PAGE_BYTES);
    const page = (where: ReadonlyArray<readonly [at: number, byte: number]>): Uint8Array => {
      const made = base.slice();
      for (const [at, byte] of where) made[at] = byte;
      return made;
    };
    expect(encoded(base, base)).toEqual(new Uint8Array(0));
    expect(encoded(base, page([[0, 7]]))).toEqual(Uint8Array.of(0, 1, 7));
    expect(encoded(base, page([[4095, 7]]))).toEqual(Uint8Array.of(0xff, 0x1f, 1, 7));
    expect(
      encoded(
        base,
        page([
          [127, 7],
          [300, 8],
          [301, 9],
        ]),
      ),
    ).toEqual(Uint8Array.of(127, 1, 7, 0xac, 1, 2, 8, 9));
    // One equal byte is cheaper as a changed one than as a run.
    expect(
      encoded(
        base,
        page([
          [5, 7],
          [7, 8],
        ]),
      ),
    ).toEqual(Uint8Array.of(5, 3, 7, 0, 8));
    expect(
      encoded(
        base,
        page([
          [5, 7],
          [8, 8],
        ]),
      ),
    ).toEqual(Uint8Array.of(5, 1, 7, 2, 1, 8));
  });

  it("is given up when it would be longer than it may", () => {
    fc.assert(
      fc.property(fc.integer(), changes, (seed, where) => {
        const base = pageOf(seed);
        const page = changed(base, where);
        const delta = encoded(base, page);
        if (delta === null || delta.length === 0) return;
        expect(encoded(base, page, delta.length)).toEqual(delta);
        expect(encoded(base, page, delta.length - 1)).toBeNull();
      }),
    );
    expect(encoded(pageOf(1), pageOf(2), PAGE_BYTES - 9)).toBeNull();
  });

  it.each([
    ["ends within a pair of runs", [5]],
    ["ends within a length", [0x85]],
    ["ends before its changed bytes do", [0, 3, 1, 2]],
    ["has no changed bytes", [5, 0]],
    ["has no equal bytes between two runs", [0, 1, 7, 0, 1, 7]],
    ["has a length of three bytes", [0x80, 0x80, 1, 1, 7]],
    ["spells a length longer than it must", [0x85, 0, 1, 7]],
    ["has equal bytes beyond the page", [0x81, 0x20, 1, 7]],
    ["has changed bytes beyond the page", [0xff, 0x1f, 2, 7, 7]],
  ])("that %s is refused", (_, bytes) => {
    const room = new Uint8Array(PAGE_BYTES + 64).fill(GUARD, PAGE_BYTES);
    const behind = Uint8Array.from([...bytes, 1, 1, 1, 1, 1, 1]);
    expect(applyXbzrle(behind, 0, bytes.length, room, 0)).toBe(false);
    expect(room.subarray(PAGE_BYTES).every((byte) => byte === GUARD)).toBe(true);
  });

  it(`writes within its page alone, whatever it says, in ${FUZZ_RUNS} mutations`, () => {
    let state = 0x60d317;
    const random = (below: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const corpus = fc
      .sample(fc.tuple(fc.integer(), changes), { numRuns: 50, seed: 1 })
      .flatMap(([seed, where]) => encoded(pageOf(seed), changed(pageOf(seed), where)) ?? []);
    const room = new Uint8Array(PAGE_BYTES + 64).fill(GUARD);
    let accepted = 0;
    for (let run = 0; run < FUZZ_RUNS; run++) {
      const bytes = corpus[random(corpus.length)]!.slice();
      for (let change = random(3); change >= 0 && bytes.length > 0; change--) bytes[random(bytes.length)] = random(256);
      if (applyXbzrle(bytes, 0, random(bytes.length + 1), room, 32)) accepted++;
      for (let i = 0; i < 32; i++)
        if (room[i] !== GUARD || room[PAGE_BYTES + 32 + i] !== GUARD) throw new Error("beyond");
    }
    expect(accepted).toBeGreaterThan(FUZZ_RUNS / 1000);
  });
});
