import { Parser } from "@nats-io/nats-core/internal";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { pour } from "../../kernel/byte-sink.ts";
import { makeMessageReader } from "./message-reader.ts";

/** What is read at once while no long message is coming. */
const SHORT_BYTES_MAX = 65_536;
const GUARD = 0xa5;
const GUARD_BYTES = 64;

const payload = (length: number): string => "MSG x 1 5\r\n".repeat(Math.ceil(length / 11)).slice(0, length);
const lengths = fc.oneof(
  { weight: 4, arbitrary: fc.nat(300) },
  { weight: 1, arbitrary: fc.integer({ min: SHORT_BYTES_MAX - 40, max: SHORT_BYTES_MAX + 40 }) },
  { weight: 2, arbitrary: fc.integer({ min: SHORT_BYTES_MAX, max: 3 * SHORT_BYTES_MAX }) },
);
const message = lengths.map((length) => `MSG a.b 12 ${length}\r\n${payload(length)}\r\n`);
const withReply = lengths.map((length) => `MSG a.b 12 re.ply ${length}\r\n${payload(length)}\r\n`);
const withHeaders = lengths.map((length) => {
  const headers = "NATS/1.0\r\nA: b\r\n\r\n";
  return `HMSG a.b 12 ${headers.length} ${headers.length + length}\r\n${headers}${payload(length)}\r\n`;
});
const line = fc.constantFrom("PING\r\n", "PONG\r\n", "+OK\r\n", "-ERR 'no'\r\n", 'INFO {"MSG x 1 99":7}\r\n');
const stream = fc.array(fc.oneof(message, withReply, withHeaders, line), { maxLength: 8 }).map((all) => all.join(""));
/** Lengths of reads, over and over; a socket never reads more than there is room for. */
const reads = fc.array(fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 300_000 })), {
  minLength: 1,
  maxLength: 12,
});

interface Reading {
  readonly pieces: ReadonlyArray<Uint8Array>;
  /** Memory of long messages, between guards. */
  readonly own: ReadonlyArray<Uint8Array>;
}

/** The stream, read as long as each read happens to be, straight into the room. */
const run = (bytes: Uint8Array, lengthsOfReads: ReadonlyArray<number>): Reading => {
  const pieces: Uint8Array[] = [];
  const own: Uint8Array[] = [];
  const reader = makeMessageReader({
    give: (piece) => pieces.push(piece),
    allocate: (length) => {
      const all = new Uint8Array(length + 2 * GUARD_BYTES).fill(GUARD);
      own.push(all);
      return all.subarray(GUARD_BYTES, GUARD_BYTES + length);
    },
  });
  let turn = 0;
  for (let at = 0; at < bytes.length; ) {
    const room = reader.room();
    if (room.length === 0) throw new Error("there is no room");
    const count = Math.min(lengthsOfReads[turn++ % lengthsOfReads.length]!, room.length, bytes.length - at);
    room.set(bytes.subarray(at, at + count));
    reader.filled(count);
    at += count;
  }
  for (const all of own)
    for (let i = 0; i < GUARD_BYTES; i++)
      if (all[i] !== GUARD || all[all.length - 1 - i] !== GUARD) throw new Error("written out of bounds");
  return { pieces, own };
};

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

describe("messages read from a connection", () => {
  it("are the same to the client's parser, however the stream is cut", () => {
    fc.assert(
      fc.property(stream, reads, (text, at) => {
        const bytes = Buffer.from(text, "latin1");
        const { pieces } = run(bytes, at);
        expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
        expect(eventsOf(pieces)).toEqual(eventsOf([bytes]));
      }),
      { numRuns: 300 },
    );
  });

  it("come whole when they are long, each in memory of its own", () => {
    fc.assert(
      fc.property(fc.integer({ min: SHORT_BYTES_MAX, max: 200_000 }), reads, (length, at) => {
        const text = `MSG a.b 12 ${length}\r\n${payload(length)}\r\n`;
        const { pieces, own } = run(Buffer.from(`PING\r\n${text}${text}PING\r\n`, "latin1"), at);
        const long = pieces.filter((piece) => own.some((all) => all.buffer === piece.buffer));
        expect(long.map((piece) => Buffer.from(piece).toString("latin1"))).toEqual([text, text]);
        expect(new Set(long.map(({ buffer }) => buffer)).size).toBe(2);
      }),
      { numRuns: 100 },
    );
  });

  it("that follow a long one are not read by way of the short buffer, save a few KiB", () => {
    const text = `MSG a.b 12 200000\r\n${payload(200_000)}\r\n`;
    const bytes = Buffer.from(text.repeat(4), "latin1");
    const rooms: number[] = [];
    const reader = makeMessageReader({ give: () => {}, allocate: (length) => new Uint8Array(length) });
    for (let at = 0; at < bytes.length; ) {
      const room = reader.room();
      rooms.push(room.length);
      const count = Math.min(room.length, bytes.length - at);
      room.set(bytes.subarray(at, at + count));
      reader.filled(count);
      at += count;
    }
    // The first is noticed in the short buffer; from then on one read is one message.
    expect(rooms.length).toBe(5);
    expect(rooms.slice(2).every((room) => room > 190_000)).toBe(true);
  });

  it("are the same when they were poured", () => {
    const bytes = Buffer.from(`PING\r\nMSG a 1 100000\r\n${payload(100_000)}\r\n+OK\r\n`, "latin1");
    const pieces: Uint8Array[] = [];
    const reader = makeMessageReader({
      give: (piece) => pieces.push(piece),
      allocate: (length) => new Uint8Array(length),
    });
    for (const part of [bytes.subarray(0, 10), bytes.subarray(10, 99_999), bytes.subarray(99_999)]) pour(reader, part);
    expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
  });

  it("of no protocol pass through in their order, and nothing of them is made up", () => {
    const garbage = fc.oneof(
      fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
      fc.constantFrom("MSG a 1 99999999999999\r\n", "MSG\r\n", "M 1x\r\n", "hmsg 7\n1234567\r\n").map(Buffer.from),
    );
    fc.assert(
      fc.property(fc.array(garbage, { maxLength: 6 }), reads, (chunks, at) => {
        const all = Buffer.concat(chunks);
        const out = Buffer.concat(run(all, at).pieces);
        expect(out.equals(all.subarray(0, out.length))).toBe(true);
      }),
    );
    const endless = Buffer.alloc(70_001, 0x61);
    expect(run(endless, [1000]).pieces.reduce((sum, piece) => sum + piece.length, 0)).toBe(70_001);
  });
});
