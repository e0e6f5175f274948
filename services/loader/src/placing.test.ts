import type { MissingMemory } from "@godwit/guest";
import { PAGE_BYTES } from "@godwit/memory";
import type { PagesPacket } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { makePlacer } from "./placing.ts";

const PAGES = 64;

/** Memory that remembers what was put where, and how; nothing real behaves badly enough. */
const memory = () => {
  const pages = new Map<number, number>();
  const copies: Array<readonly [first: number, pages: number]> = [];
  const missing: MissingMemory = {
    vcpus: Effect.succeed(1),
    touches: () => Effect.never,
    copy: (_, first, bytes) => {
      copies.push([first, bytes.length / PAGE_BYTES]);
      for (let n = 0; n < bytes.length / PAGE_BYTES; n++) pages.set(first + n, bytes[n * PAGE_BYTES]!);
    },
    zero: (_, first, count) => {
      for (let n = 0; n < count; n++) pages.set(first + n, 0);
    },
    placed: () => Effect.void,
    end: Effect.void,
    giveUp: () => Effect.void,
  };
  return { pages, copies, missing };
};

/** Page p holds bytes of p + 1, and every third page is zero. */
const isZero = (page: number): boolean => page % 3 === 0;
const packetOf = (runs: ReadonlyArray<number>): PagesPacket => {
  const pages: number[] = [];
  for (let r = 0; r < runs.length; r += 2) for (let n = 0; n < runs[r + 1]!; n++) pages.push(runs[r]! + n);
  const normal = pages.filter((page) => !isZero(page));
  const zeroMap = new Uint8Array((pages.length + 7) >>> 3);
  pages.forEach((page, index) => {
    if (isZero(page)) zeroMap[index >>> 3]! |= 1 << (index & 7);
  });
  const payload = new Uint8Array(normal.length * PAGE_BYTES);
  normal.forEach((page, index) => {
    payload.fill(page + 1, index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
  });
  return {
    ...{ kind: "pages", migration: "m", epoch: 1, round: 1, item: 0, channel: 0, channelEpoch: 1, block: 0 },
    ...{ compression: "none", runs: Uint32Array.from(runs), pages: pages.length, normalPages: normal.length },
    ...{ zeroMap, short: [], overflow: 0, payload, rawBytes: payload.length },
  };
};

describe("pages of a postcopy", () => {
  it("go to their places, zeros and others, whatever packets they come in", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 8, 32),
        fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 }),
        (hostPages, cuts) => {
          const { pages, copies, missing } = memory();
          const placer = makePlacer(missing, [{ pages: PAGES, hostPages }]);
          for (let at = 0, cut = 0; at < PAGES; cut++) {
            const count = Math.min(cuts[cut % cuts.length]!, PAGES - at);
            expect(placer.place(packetOf([at, count]))).toBe("placed");
            at += count;
          }
          for (let page = 0; page < PAGES; page++) expect(pages.get(page)).toBe(isZero(page) ? 0 : page + 1);
          // Whole host pages only.
          if (hostPages > 1)
            for (const [first, count] of copies) expect([first % hostPages, count]).toEqual([0, hostPages]);
        },
      ),
    );
  });

  it("of a large host page are in place only once all of it has come, in whatever order", () => {
    const { pages, missing } = memory();
    const placer = makePlacer(missing, [{ pages: PAGES, hostPages: 32 }]);
    placer.place(packetOf([48, 16]));
    placer.place(packetOf([0, 10]));
    expect(pages.size).toBe(0);
    placer.place(packetOf([32, 16]));
    expect([...pages.keys()]).toEqual(Array.from({ length: 32 }, (_, n) => 32 + n));
  });

  it("whose payload is not what it says change nothing", () => {
    const { pages, missing } = memory();
    const placer = makePlacer(missing, [{ pages: PAGES, hostPages: 1 }]);
    const packet = { ...packetOf([0, 8]), compression: "zstd" as const };
    expect(placer.place(packet)).toHaveProperty("malformed");
    expect(pages.size).toBe(0);
  });
});

describe("a packet that could be placed only in part", () => {
  it("comes again, and counts once: no host page is in place before all of it is there", () => {
    const { pages, missing } = memory();
    let refusals = 1;
    const once: MissingMemory = {
      ...missing,
      copy: (block, first, bytes) => {
        if (first === 32 && refusals-- > 0) throw new Error("no memory");
        missing.copy(block, first, bytes);
      },
    };
    const placer = makePlacer(once, [{ pages: PAGES, hostPages: 32 }]);
    placer.place(packetOf([34, 30]));
    expect(() => placer.place(packetOf([24, 10]))).toThrow("no memory");
    expect(placer.place(packetOf([24, 10]))).toBe("placed");
    expect([...pages.keys()].every((page) => page >= 32)).toBe(true);
    placer.place(packetOf([0, 24]));
    for (let page = 0; page < PAGES; page++) expect(pages.get(page)).toBe(isZero(page) ? 0 : page + 1);
  });
});
