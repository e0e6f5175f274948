import * as fc from "fast-check";
import { assert, describe, it } from "vitest";
import { makeReturnPathReader, type ReturnMessage } from "./return-path.ts";

const message = (type: number, body: Uint8Array): Buffer => {
  const head = Buffer.alloc(4);
  head.writeUInt16BE(type, 0);
  head.writeUInt16BE(body.length, 2);
  return Buffer.concat([head, body]);
};
const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const range = (offset: number, length: number): Buffer => {
  const bytes = Buffer.alloc(12);
  bytes.writeBigUInt64BE(BigInt(offset), 0);
  bytes.writeUInt32BE(length, 8);
  return bytes;
};
const requestOfBlock = (block: string, offset: number): Buffer =>
  message(3, Buffer.concat([range(offset, 4096), Buffer.from([block.length]), Buffer.from(block)]));

const bitmap = (block: string, bits: Uint8Array, end = 0x0123_4567_89ab_cdefn): Buffer => {
  const [size, mark] = [Buffer.alloc(8), Buffer.alloc(8)];
  size.writeBigUInt64BE(BigInt(bits.length));
  mark.writeBigUInt64BE(end);
  return Buffer.concat([message(5, Buffer.from([block.length, ...Buffer.from(block)])), size, bits, mark]);
};
const BITS = Buffer.from("ff00000000000080", "hex");

/** Bytes that a QEMU 10.0 has sent, and what they say. */
const SPOKEN = Buffer.concat([
  message(2, u32(7)),
  requestOfBlock("ram0", 0x7c0000),
  message(4, range(0x7c1000, 4096)),
  message(7, Buffer.alloc(0)),
  bitmap("ram1", BITS),
  message(6, u32(1)),
  requestOfBlock("ram1", 0),
  message(4, range(4096, 4096)),
  message(1, u32(0)),
]);
const SAID: ReadonlyArray<ReturnMessage> = [
  { kind: "pong", ping: 7 },
  { kind: "request", block: "ram0", offset: 0x7c0000, length: 4096 },
  { kind: "request", block: "ram0", offset: 0x7c1000, length: 4096 },
  { kind: "switchover-ack" },
  { kind: "received", block: "ram1", bits: BITS },
  { kind: "resumed" },
  { kind: "request", block: "ram1", offset: 0, length: 4096 },
  { kind: "request", block: "ram1", offset: 4096, length: 4096 },
  { kind: "shut", error: 0 },
];

describe("a reader of the return path", () => {
  it("reads the same however the bytes are cut", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(SPOKEN.length)), (cuts) => {
        const reader = makeReturnPathReader();
        const at = [0, ...cuts.toSorted((a, b) => a - b), SPOKEN.length];
        const said = at.slice(1).flatMap((end, n) => reader.push(SPOKEN.subarray(at[n], end)).messages);
        assert.deepStrictEqual(said, SAID);
      }),
    );
  });

  it("takes bytes that somebody else uses again", () => {
    const reader = makeReturnPathReader();
    const room = Buffer.from(SPOKEN.subarray(0, 20));
    reader.push(room);
    room.fill(0xff);
    assert.deepStrictEqual(reader.push(SPOKEN.subarray(20)).messages, SAID.slice(1));
  });

  it("never throws, whatever comes, and stays silent after what it could not read", () => {
    const damaged = fc
      .tuple(fc.nat(SPOKEN.length - 1), fc.nat(255))
      .map(([at, value]) => Buffer.concat([SPOKEN.subarray(0, at), Buffer.from([value]), SPOKEN.subarray(at + 1)]));
    fc.assert(
      fc.property(fc.array(fc.oneof(damaged, fc.uint8Array({ maxLength: 64 })), { maxLength: 4 }), (chunks) => {
        const reader = makeReturnPathReader();
        let stopped = false;
        for (const chunk of chunks) {
          const { messages, malformed } = reader.push(chunk);
          if (stopped) assert.isEmpty(messages);
          stopped ||= malformed !== null;
          assert.strictEqual(stopped, malformed !== null);
        }
      }),
    );
  });

  it.each([
    ["a request without a block", message(4, range(0, 4096)), "a request for pages"],
    ["a block without a name", message(3, Buffer.concat([range(0, 4096), Buffer.from([0])])), "pages of a block"],
    ["a request beyond all memory", requestOfBlock("ram0", 2 ** 60), "beyond all blocks"],
    ["a message of another kind", message(8, Buffer.alloc(0)), "not asked for"],
    ["a bitmap of no block", Buffer.concat([message(5, Buffer.from([0])), Buffer.alloc(8)]), "a bitmap: type 5"],
    ["a bitmap of 16 EiB", bitmap("ram0", BITS).fill(0xff, 9, 17), "too long"],
    ["a bitmap with more behind it", bitmap("ram0", BITS, 7n), "without its end"],
    ["a message of 600 bytes", message(2, Buffer.alloc(600)), "too long"],
    ["a short pong", message(2, Buffer.alloc(3)), "answer to a ping"],
    ["another answer to a recovery", message(6, u32(0)), "recovery"],
  ])("says what is wrong with %s", (_, bytes, complaint) => {
    const reader = makeReturnPathReader();
    const { messages, malformed } = reader.push(Buffer.concat([message(2, u32(1)), bytes]));
    assert.deepStrictEqual(messages, [{ kind: "pong", ping: 1 }]);
    assert.include(malformed, complaint);
  });
});
