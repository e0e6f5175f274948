import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Reassembly from "./reassembly.ts";

/** Byte n of the stream, so that a byte in the wrong place shows. */
const byteAt = (offset: number): number => (offset * 31 + (offset >> 8)) & 255;
const bytesFrom = (offset: number, count: number): Uint8Array =>
  Uint8Array.from({ length: count }, (_, n) => byteAt(offset + n));
const pieceOf = (item: number, offset: number, count: number): Reassembly.Piece => ({
  item,
  offset,
  payload: bytesFrom(offset, count),
});
/** A stream cut once, as a source cuts it. */
const cut = (lengths: ReadonlyArray<number>): Reassembly.Piece[] => {
  let offset = 0;
  return lengths.map((length, item) => {
    const piece = pieceOf(item, offset, length);
    offset += length;
    return piece;
  });
};
const endOf = (pieces: ReadonlyArray<Reassembly.Piece>): number =>
  pieces.reduce((end, { offset, payload }) => Math.max(end, offset + payload.length), 0);

/** A device that takes what comes in order; nothing is acknowledged but what it took. */
class Sink {
  readonly stream: Reassembly.Reassembly;
  readonly out: number[] = [];
  readonly acknowledged = new Set<number>();
  writing: Reassembly.Piece[] = [];

  constructor(buffersMax: number, bytesMax: number) {
    this.stream = Reassembly.make(buffersMax, bytesMax);
  }

  offer(piece: Reassembly.Piece): Reassembly.Verdict {
    const verdict = Reassembly.offer(this.stream, piece);
    if (verdict === "written") this.acknowledged.add(piece.item);
    return verdict;
  }

  take(bytesMax: number): void {
    if (this.writing.length === 0) this.writing = Reassembly.take(this.stream, bytesMax);
  }

  written(): void {
    for (const { item, payload } of this.writing) {
      this.stream.written += payload.length;
      this.out.push(...payload);
      this.acknowledged.add(item);
    }
    this.writing = [];
  }
}

const lengths = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 40 });
/** Which piece comes next (out of all, so with doubles and losses), and what the device does meanwhile. */
const fates = fc.array(
  fc.tuple(fc.nat(10_000), fc.constantFrom("wait", "take", "written"), fc.integer({ min: 1, max: 100 })),
  {
    maxLength: 300,
  },
);
const limits = fc.record({ buffersMax: fc.integer({ min: 1, max: 10 }), bytesMax: fc.integer({ min: 40, max: 300 }) });

const run = (
  { buffersMax, bytesMax }: { readonly buffersMax: number; readonly bytesMax: number },
  pieces: ReadonlyArray<Reassembly.Piece>,
  fate: ReadonlyArray<readonly [number, string, number]>,
  check: (sink: Sink, verdict: Reassembly.Verdict, piece: Reassembly.Piece) => void,
): Sink => {
  const sink = new Sink(buffersMax, bytesMax);
  for (const [pick, device, most] of fate) {
    const piece = pieces[pick % pieces.length]!;
    check(sink, sink.offer(piece), piece);
    if (device === "take") sink.take(most);
    if (device === "written") sink.written();
  }
  return sink;
};
/** The source sends again whatever is not acknowledged, in order, as long as it takes. */
const resend = (sink: Sink, pieces: ReadonlyArray<Reassembly.Piece>): void => {
  for (let pass = 0; sink.acknowledged.size < pieces.length; pass++) {
    if (pass > pieces.length + 1) throw new Error("it never comes to an end");
    for (const piece of pieces) if (!sink.acknowledged.has(piece.item)) sink.offer(piece);
    for (let turns = 0; turns < 3; turns++) {
      sink.written();
      sink.take(100);
    }
    sink.written();
  }
};

describe("a stream put in order again", () => {
  it("comes out once, in order, byte for byte, whatever was lost, doubled, late or sent again", () => {
    fc.assert(
      fc.property(limits, lengths, fates, (limit, each, fate) => {
        const pieces = cut(each);
        const sink = run(limit, pieces, fate, (_, verdict) => expect(verdict).not.toBe("torn"));
        // So far a prefix; and all of it once everything was sent again.
        expect(sink.out).toEqual([...bytesFrom(0, sink.out.length)]);
        resend(sink, pieces);
        expect(sink.out).toEqual([...bytesFrom(0, endOf(pieces))]);
        expect(sink.stream).toMatchObject({ next: endOf(pieces), written: endOf(pieces), queuedBytes: 0 });
        expect(sink.stream.queue.size).toBe(0);
      }),
    );
  });

  it("keeps to its limits of count and bytes, but for the one piece that all others wait for", () => {
    fc.assert(
      fc.property(limits, lengths, fates, (limit, each, fate) => {
        run(limit, cut(each), fate, ({ stream }) => {
          const queued = [...stream.queue.values()].reduce((sum, { payload }) => sum + payload.length, 0);
          expect(stream.queuedBytes).toBe(queued);
          const head = stream.queue.get(stream.next);
          expect(stream.queue.size - (head === undefined ? 0 : 1)).toBeLessThanOrEqual(limit.buffersMax);
          expect(queued - (head?.payload.length ?? 0)).toBeLessThanOrEqual(limit.bytesMax);
        });
      }),
    );
  });

  it("says `written` only of what the device has taken, and `full` only of what nothing waits for", () => {
    fc.assert(
      fc.property(limits, lengths, fates, (limit, each, fate) => {
        run(limit, cut(each), fate, ({ stream, out }, verdict, piece) => {
          if (verdict === "written") expect(piece.offset + piece.payload.length).toBeLessThanOrEqual(out.length);
          if (verdict === "full") expect(piece.offset).not.toBe(stream.next);
        });
      }),
    );
  });

  it("never comes out wrong when it is cut anew, and says `torn` instead of leaving a hole unnoticed", () => {
    let torn = 0;
    fc.assert(
      fc.property(limits, lengths, lengths, fates, (limit, each, other, fate) => {
        const first = cut(each);
        const pieces = [...first, ...cut(other).map((piece) => ({ ...piece, item: piece.item + first.length }))];
        const sink = run(limit, pieces, fate, (_, verdict) => {
          if (verdict === "torn") torn++;
        });
        expect(sink.out).toEqual([...bytesFrom(0, sink.out.length)]);
        // What is left of either cut is sent until it is done, or shows that it is torn.
        for (let pass = 0; sink.out.length < endOf(pieces) && pass < 200; pass++) {
          const verdicts = pieces.map((piece) => sink.offer(piece));
          sink.take(100);
          sink.written();
          if (verdicts.includes("torn")) return;
        }
        expect(sink.out).toEqual([...bytesFrom(0, endOf(pieces))]);
      }),
    );
    expect(torn).toBeGreaterThan(0);
  });

  it("takes at least one piece, and then only what fits", () => {
    const stream = Reassembly.make(10, 1000);
    for (const piece of cut([50, 30, 30])) Reassembly.offer(stream, piece);
    expect(Reassembly.take(stream, 40).map(({ item }) => item)).toEqual([0]);
    expect(Reassembly.take(stream, 60).map(({ item }) => item)).toEqual([1, 2]);
    expect(Reassembly.take(stream, 60)).toEqual([]);
  });

  it("shows the most that ever waited", () => {
    const stream = Reassembly.make(10, 1000);
    for (const piece of cut([50, 30, 30]).reverse()) Reassembly.offer(stream, piece);
    Reassembly.take(stream, 1000);
    expect(stream).toMatchObject({ queuedBytes: 0, queuedBytesPeak: 110 });
  });
});
