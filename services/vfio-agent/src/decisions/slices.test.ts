import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Slices from "./slices.ts";

const SLICE_BYTES_MAX = 1000;
const LANES = [0, 1, 2].map((channel) => ({ channel, epoch: 1 }));

type Step =
  | { readonly do: "read"; readonly stream: number; readonly bytes: number }
  | { readonly do: "hand out"; readonly lane: number }
  | { readonly do: "acknowledge" | "lose"; readonly pick: number };
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant("read" as const),
    stream: fc.integer({ min: 1, max: 3 }),
    bytes: fc.constantFrom(0, 1, 999, 1000, 1001, 5500),
  }),
  fc.record({ do: fc.constant("hand out" as const), lane: fc.nat(2) }),
  fc.record({ do: fc.constantFrom("acknowledge" as const, "lose" as const), pick: fc.nat(1000) }),
);
const histories = fc.array(step, { maxLength: 200 });

/** Runs steps, and calls `check` after each with all slices that were ever handed out. */
const run = (
  steps: ReadonlyArray<Step>,
  check: (slices: Slices.Slices, handedOut: ReadonlyArray<Slices.Slice>) => void,
): Slices.Slices => {
  const slices = Slices.make(SLICE_BYTES_MAX);
  const handedOut: Slices.Slice[] = [];
  for (const [now, each] of steps.entries()) {
    const picked = "pick" in each ? handedOut[each.pick % Math.max(1, handedOut.length)] : undefined;
    if (each.do === "read") Slices.append(slices, each.stream, each.bytes);
    if (each.do === "hand out") {
      const slice = Slices.take(slices, LANES[each.lane]!, now);
      if (slice !== null) handedOut.push(slice);
    }
    if (each.do === "acknowledge" && picked !== undefined) Slices.applied(slices, picked.item);
    if (each.do === "lose" && picked !== undefined && slices.byItem.has(picked.item)) Slices.sendAgain(slices, picked);
    check(slices, handedOut);
  }
  return slices;
};

describe("slices", () => {
  it("of a stream follow each other without a gap, none larger than a packet holds, none empty", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(5000), { maxLength: 50 }), (reads) => {
        const slices = Slices.make(SLICE_BYTES_MAX);
        for (const bytes of reads) Slices.append(slices, 7, bytes);
        let at = 0;
        for (const { offset, bytes } of Slices.streamOf(slices, 7).open) {
          expect(offset).toBe(at);
          expect(bytes).toBeGreaterThan(0);
          expect(bytes).toBeLessThanOrEqual(SLICE_BYTES_MAX);
          at += bytes;
        }
        expect(at).toBe(reads.reduce((sum, bytes) => sum + bytes, 0));
      }),
    );
  });

  it("stay this side's to deliver until they are acknowledged, and each counts once, whatever was lost and sent again", () => {
    fc.assert(
      fc.property(histories, (steps) => {
        run(steps, (slices) => {
          for (const stream of slices.streams.values()) {
            const open = stream.open.reduce((sum, { bytes }) => sum + bytes, 0);
            expect(Slices.openBytes(slices, stream.stream)).toBe(open);
            expect(stream.acknowledgedBytes + open).toBe(stream.end);
            expect(stream.open.map(({ offset }) => offset)).toEqual(
              [...stream.open.map(({ offset }) => offset)].sort((a, b) => a - b),
            );
            // Bytes that may be given back: nobody will ask for them again.
            expect(stream.floor).toBe(stream.open[0]?.offset ?? stream.end);
          }
          const open = [...slices.streams.values()].flatMap((stream) => stream.open);
          expect(slices.byItem.size).toBe(open.length);
          expect(Slices.isEmpty(slices)).toBe(open.length === 0);
        });
      }),
    );
  });

  it("are on one channel at a time: no slice is handed out while it is on its way, or after it has arrived", () => {
    fc.assert(
      fc.property(histories, (steps) => {
        const slices = run(steps, () => {});
        const before = new Set([...slices.byItem.values()].filter(({ channel }) => channel !== null));
        for (
          let slice = Slices.take(slices, LANES[0]!, 1e6);
          slice !== null;
          slice = Slices.take(slices, LANES[0]!, 1e6)
        ) {
          expect(before.has(slice)).toBe(false);
          expect(slices.byItem.get(slice.item)).toBe(slice);
          before.add(slice);
        }
        // And none is forgotten.
        expect(before.size).toBe(slices.byItem.size);
      }),
    );
  });

  it("that were lost go before what was never sent, and say how often they went", () => {
    const slices = Slices.make(SLICE_BYTES_MAX);
    Slices.append(slices, 1, 3000);
    const first = Slices.take(slices, LANES[0]!, 10)!;
    Slices.sendAgain(slices, first);
    expect(Slices.take(slices, LANES[1]!, 20)).toBe(first);
    expect(first).toMatchObject({ channel: 1, firstSentAt: 10, sentAt: 20, attempts: 2 });
    expect(slices.resent).toBe(1);
  });

  it("that are acknowledged twice, or were never cut, change nothing", () => {
    const slices = Slices.make(SLICE_BYTES_MAX);
    Slices.append(slices, 1, 1500);
    const first = Slices.take(slices, LANES[0]!, 0)!;
    expect(Slices.applied(slices, first.item)).toBe(first);
    expect(Slices.applied(slices, first.item)).toBeNull();
    expect(Slices.applied(slices, 999)).toBeNull();
    expect(Slices.openBytes(slices, 1)).toBe(500);
  });

  it("acknowledged by an earlier copy while they wait are not handed out again", () => {
    const slices = Slices.make(SLICE_BYTES_MAX);
    Slices.append(slices, 1, 1500);
    const first = Slices.take(slices, LANES[0]!, 0)!;
    Slices.sendAgain(slices, first);
    Slices.applied(slices, first.item);
    expect(Slices.take(slices, LANES[0]!, 1)).toMatchObject({ offset: 1000, bytes: 500 });
    expect(Slices.take(slices, LANES[0]!, 1)).toBeNull();
  });

  it("are due an acknowledgement only at the head of their stream, once they were handed out", () => {
    const slices = Slices.make(SLICE_BYTES_MAX);
    Slices.append(slices, 1, 2000);
    Slices.append(slices, 3, 10);
    expect(Slices.heads(slices)).toEqual([]);
    const [first, second] = [0, 1].map(() => Slices.take(slices, LANES[0]!, 0)!);
    expect(Slices.heads(slices)).toEqual([first]);
    Slices.applied(slices, first!.item);
    expect(Slices.heads(slices)).toEqual([second]);
  });
});
