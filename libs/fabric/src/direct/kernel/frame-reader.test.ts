import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { makeMutator, seededRandom } from "../../../../protocol/src/mutation.conformance.ts";
import { type ByteSink, pour } from "../../kernel/byte-sink.ts";
import { makeFrameReader } from "./frame-reader.ts";

const FRAME_BYTES_MAX = 1000;
const FUZZ_RUNS = Number(process.env["FUZZ_RUNS"] ?? 200_000) / 10;
const GUARD = 0xa5;

interface Reading {
  readonly reader: ByteSink;
  readonly frames: Uint8Array[];
  /** Every piece of memory that was handed out, with its guards. */
  readonly memory: ReadonlyArray<{ readonly all: Uint8Array; readonly bytes: number }>;
}
const GUARD_BYTES = 64;

/** Memory lies between guards, and is as full of old bytes as it is in life. */
const read = (): Reading => {
  const frames: Uint8Array[] = [];
  const memory: Array<{ all: Uint8Array; bytes: number }> = [];
  const reader = makeFrameReader({
    frameBytesMax: FRAME_BYTES_MAX,
    allocate: (bytes) => {
      const all = new Uint8Array(bytes + 2 * GUARD_BYTES).fill(GUARD);
      memory.push({ all, bytes });
      return all.subarray(GUARD_BYTES, GUARD_BYTES + bytes);
    },
    give: (frame) => frames.push(frame.slice()),
  });
  return { reader, frames, memory };
};
const wire = (frames: ReadonlyArray<Uint8Array>): Uint8Array =>
  Buffer.concat(
    frames.flatMap((frame) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(frame.length);
      return [length, frame];
    }),
  );
const expectWhole = ({ memory }: Reading): void => {
  for (const { all, bytes } of memory) {
    if (bytes > FRAME_BYTES_MAX + 4) throw new Error(`${bytes} bytes were allocated`);
    for (let i = 0; i < GUARD_BYTES; i++)
      if (all[i] !== GUARD || all[all.length - 1 - i] !== GUARD) throw new Error("written out of bounds");
  }
};
/** As reads of a socket do it: each as long as it happens to be, straight into the room. */
const arrive = (reader: ByteSink, bytes: Uint8Array, cut: (max: number) => number): boolean => {
  for (let at = 0; at < bytes.length; ) {
    const room = reader.room();
    expect(room.length).toBeGreaterThan(0);
    const count = Math.min(Math.max(1, cut(room.length)), room.length, bytes.length - at);
    room.set(bytes.subarray(at, at + count));
    if (!reader.filled(count)) return false;
    at += count;
  }
  return true;
};

const frame = fc.uint8Array({ minLength: 1, maxLength: FRAME_BYTES_MAX });

describe("frames", () => {
  it("come out as they went in, however the bytes were cut", () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 8 }), fc.array(fc.integer({ min: 1, max: 1200 })), (frames, cuts) => {
        const reading = read();
        let next = 0;
        const cut = (max: number): number => (cuts.length === 0 ? max : cuts[next++ % cuts.length]!);
        expect(arrive(reading.reader, wire(frames), cut)).toBe(true);
        expect(reading.frames).toEqual(frames.map((each) => each.slice()));
        expectWhole(reading);
      }),
    );
  });

  it("come out of what was poured, too", () => {
    const frames = [1, 2, 3, 500, FRAME_BYTES_MAX].map((length) => new Uint8Array(length).fill(length));
    for (const size of [1, 3, 7, 64, 5000]) {
      const reading = read();
      const bytes = wire(frames);
      for (let at = 0; at < bytes.length; at += size)
        expect(pour(reading.reader, bytes.subarray(at, at + size))).toBe(true);
      expect(reading.frames).toEqual(frames);
    }
  });

  it("bring the length of the next one with a single read", () => {
    const reading = read();
    const bytes = wire([new Uint8Array(100), new Uint8Array(200)]);
    expect(reading.reader.room()).toHaveLength(4);
    pour(reading.reader, bytes.subarray(0, 4));
    expect(reading.reader.room()).toHaveLength(104);
    pour(reading.reader, bytes.subarray(4, 108));
    expect(reading.frames).toHaveLength(1);
    expect(reading.reader.room()).toHaveLength(204);
  });

  it.each([0, FRAME_BYTES_MAX + 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff])(
    "a length of %d ends it, and nothing is allocated",
    (length) => {
      const reading = read();
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32LE(length);
      expect(pour(reading.reader, bytes)).toBe(false);
      expect(reading.memory).toEqual([]);
      // The same behind a frame.
      const later = read();
      expect(pour(later.reader, Buffer.concat([wire([Uint8Array.of(1)]), bytes]))).toBe(false);
      expect(later.frames).toHaveLength(1);
    },
  );

  it("never leave their memory, whatever a stranger sends", () => {
    const random = seededRandom(0xd1ec7);
    const corpus = Array.from({ length: 50 }, (_, i) =>
      wire(Array.from({ length: 1 + (i % 5) }, () => new Uint8Array(1 + Math.floor(random() * 300)).fill(i))),
    );
    const mutate = makeMutator(corpus, random);
    let given = 0;
    for (let run = 0; run < FUZZ_RUNS; run++) {
      const reading = read();
      arrive(reading.reader, mutate(), (max) => 1 + Math.floor(random() * max));
      expectWhole(reading);
      for (const { length } of reading.frames)
        if (length === 0 || length > FRAME_BYTES_MAX) throw new Error(`${length}`);
      given += reading.frames.length;
    }
    expect(given).toBeGreaterThan(FUZZ_RUNS / 10);
  }, 60_000);
});
