import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { makeMutator, seededRandom } from "../../../protocol/src/mutation.conformance.ts";
import { makeFrameReader } from "./frame-reader.ts";
import { encodeError, HEADER_BYTES, type Header, viewOf } from "./header.ts";
import { encodeReply } from "./reply.ts";
import { encodeRequest } from "./request.ts";

const frame = fc.oneof(
  fc.nat(0xffff).map((id) => encodeRequest(id, { kind: "reset" })),
  fc.nat(0xffff).map((id) => encodeError({ id, command: 17 }, 22)),
  fc.uint8Array({ maxLength: 200 }).map((data) => encodeReply(3, { kind: "mig-data-read", data })),
  fc.nat(3000).map((length) => encodeRequest(4, { kind: "mig-data-write", data: new Uint8Array(length).fill(0xa5) })),
);

/** The stream in pieces whose lengths come from `cuts`, over and over. */
const pieces = (stream: Uint8Array, cuts: ReadonlyArray<number>): Uint8Array[] => {
  const result: Uint8Array[] = [];
  for (let at = 0, turn = 0; at < stream.length; turn++) {
    const next = at + cuts[turn % cuts.length]!;
    result.push(stream.slice(at, next));
    at = next;
  }
  return result;
};

describe("a stream cut into frames", () => {
  it("gives the frames that were written, wherever it was cut", () => {
    const cut = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 5000 }));
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 12 }), fc.array(cut, { minLength: 1, maxLength: 8 }), (frames, cuts) => {
        const reader = makeFrameReader();
        const found: Array<{ header: Header; frame: Uint8Array }> = [];
        for (const piece of pieces(Uint8Array.from(Buffer.concat(frames)), cuts))
          expect(reader.push(piece, (header, bytes) => found.push({ header, frame: bytes.slice() }))).toBeNull();
        expect(found.map((each) => each.frame)).toEqual(frames);
        expect(found.map(({ header }) => header.frameBytes)).toEqual(frames.map(({ length }) => length));
        expect(reader.isInsideFrame()).toBe(false);
      }),
    );
  });

  it("knows that it ended inside a frame, in the header as in the body", () => {
    const whole = encodeReply(1, { kind: "mig-data-read", data: new Uint8Array(100) });
    for (const length of [1, HEADER_BYTES - 1, HEADER_BYTES, whole.length - 1]) {
      const reader = makeFrameReader();
      reader.push(whole.subarray(0, length), () => expect.unreachable());
      expect(reader.isInsideFrame()).toBe(true);
    }
  });

  it("stops at the first header that is none, after the frames before it", () => {
    const wrong = encodeRequest(2, { kind: "reset" });
    viewOf(wrong).setUint32(4, 0xffff_ffff, true);
    const reader = makeFrameReader();
    let frames = 0;
    const end = reader.push(Buffer.concat([encodeRequest(1, { kind: "reset" }), wrong]), () => frames++);
    expect(frames).toBe(1);
    expect(end?.reason).toMatch(/4294967295 bytes/);
  });

  it("never throws and never hands over what its header does not say, whatever comes", () => {
    const random = seededRandom(5);
    const mutate = makeMutator(fc.sample(frame, { numRuns: 60, seed: 5 }), random);
    let taken = 0;
    for (let run = 0; run < 20_000; run++) {
      const reader = makeFrameReader();
      for (let chunks = 0; chunks < 4; chunks++) {
        const end = reader.push(mutate(), (header, bytes) => {
          taken++;
          if (bytes.length !== header.frameBytes) throw new Error(`${bytes.length}, not ${header.frameBytes}`);
        });
        if (end !== null) break;
      }
    }
    expect(taken).toBeGreaterThan(1000);
  });
});
