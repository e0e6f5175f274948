import { Parser } from "@nats-io/nats-core/internal";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { wholeMessages } from "./whole-messages.ts";

const LONG_BYTES = 300;

const payload = (length: number): string => "MSG x 1 5\r\n".repeat(Math.ceil(length / 11)).slice(0, length);
const message = fc.nat(LONG_BYTES).map((length) => `MSG a.b 12 ${length}\r\n${payload(length)}\r\n`);
const withReply = fc.nat(LONG_BYTES).map((length) => `MSG a.b 12 re.ply ${length}\r\n${payload(length)}\r\n`);
const withHeaders = fc.nat(LONG_BYTES).map((length) => {
  const headers = "NATS/1.0\r\nA: b\r\n\r\n";
  return `HMSG a.b 12 ${headers.length} ${headers.length + length}\r\n${headers}${payload(length)}\r\n`;
});
const line = fc.constantFrom("PING\r\n", "PONG\r\n", "+OK\r\n", "-ERR 'no'\r\n", 'INFO {"MSG x 1 99":7}\r\n');
const stream = fc.array(fc.oneof(message, withReply, withHeaders, line), { maxLength: 8 }).map((all) => all.join(""));

/** The stream in chunks, each in memory of its own, as a socket gives them. */
const split = (bytes: Buffer, cuts: ReadonlyArray<number>): ReadonlyArray<Buffer> => {
  const at = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return at.slice(1).map((end, index) => {
    const chunk = Buffer.allocUnsafeSlow(end - at[index]!);
    bytes.copy(chunk, 0, at[index]!, end);
    return chunk;
  });
};

const run = (chunks: ReadonlyArray<Buffer>) => {
  const pieces: Uint8Array[] = [];
  const spared: Buffer[] = [];
  const own: Buffer[] = [];
  const cutter = wholeMessages({
    give: (piece) => pieces.push(piece),
    spare: (chunk) => {
      spared.push(chunk);
      // As the transport does: what is still needed of it would be lost, and seen.
      chunk.fill(0xff);
    },
    allocate: (length) => {
      const buffer = Buffer.allocUnsafeSlow(length);
      own.push(buffer);
      return buffer;
    },
  });
  for (const chunk of chunks) cutter.push(chunk);
  return { pieces, spared, own };
};

const overlap = (one: Uint8Array, other: Uint8Array): boolean =>
  one.buffer === other.buffer &&
  one.byteOffset < other.byteOffset + other.length &&
  other.byteOffset < one.byteOffset + one.length;

const eventsOf = (pieces: ReadonlyArray<Uint8Array>): ReadonlyArray<unknown> => {
  const events: unknown[] = [];
  const parser = new Parser({
    push: (event) => {
      if (typeof event === "function") return;
      const data = event.data === undefined ? "" : Buffer.from(event.data).toString("latin1");
      events.push([event.kind, data, event.msg?.sid, event.msg?.size]);
    },
  });
  for (const piece of pieces) parser.parse(piece);
  return events;
};

describe("messages put together from chunks", () => {
  const cuts = fc.array(fc.nat(3000), { maxLength: 12 });

  it("are the same to the client's parser, however the stream is cut", () => {
    fc.assert(
      fc.property(stream, cuts, (text, at) => {
        const bytes = Buffer.from(text, "latin1");
        const { pieces } = run(split(bytes, at));
        expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
        expect(eventsOf(pieces)).toEqual(eventsOf([bytes]));
      }),
      { numRuns: 1000 },
    );
  });

  it("come whole, each that was spread over chunks in memory of its own", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: LONG_BYTES }), cuts, (length, at) => {
        const bytes = Buffer.from(`PING\r\nMSG a.b 12 ${length}\r\n${payload(length)}\r\nPING\r\n`, "latin1");
        const { pieces, own } = run(split(bytes, at));
        for (const buffer of own) {
          expect(pieces).toContain(buffer);
          expect(buffer.toString("latin1")).toBe(`MSG a.b 12 ${length}\r\n${payload(length)}\r\n`);
        }
        expect(own.length).toBeLessThanOrEqual(1);
      }),
    );
  });

  it("leave no view of a chunk that was spared", () => {
    fc.assert(
      fc.property(stream, cuts, (text, at) => {
        const { pieces, spared } = run(split(Buffer.from(text, "latin1"), at));
        for (const chunk of spared) expect(pieces.some((piece) => overlap(piece, chunk))).toBe(false);
      }),
    );
  });

  it("of no protocol pass through in their order, and nothing of them is made up", () => {
    const garbage = fc.oneof(
      fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
      fc.constantFrom("MSG a 1 99999999999999\r\n", "MSG\r\n", "M 1x\r\n", "hmsg 7\n1234567\r\n").map(Buffer.from),
    );
    fc.assert(
      fc.property(fc.array(garbage, { maxLength: 6 }), (chunks) => {
        const all = Buffer.concat(chunks);
        const out = Buffer.concat(run(chunks.map((chunk) => Buffer.from(chunk))).pieces);
        expect(out.equals(all.subarray(0, out.length))).toBe(true);
      }),
    );
    const endless = Buffer.alloc(70_000, 0x61);
    expect(run([endless, Buffer.from("x")]).pieces.reduce((sum, piece) => sum + piece.length, 0)).toBe(70_001);
  });
});
