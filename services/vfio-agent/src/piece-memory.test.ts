import { crc32 } from "node:zlib";
import { decompress } from "@godwit/memory";
import { type Compression, decodePacket, PACKET_HEADER_BYTES, sealSlice } from "@godwit/protocol";
import { assert, describe, it } from "vitest";
import { forQueue, makeJoiner } from "./piece-memory.ts";

const messageOf = (payload: Uint8Array, rawBytes: number, compression: Compression): Uint8Array => {
  const buffer = new Uint8Array(PACKET_HEADER_BYTES + payload.length);
  buffer.set(payload, PACKET_HEADER_BYTES);
  const address = { migration: "0123456789abcdef", epoch: 1, round: 1, item: 0, channel: 0, channelEpoch: 1 };
  return sealSlice(buffer, { ...address, stream: 1, offset: 0, compression, rawBytes, payloadBytes: payload.length });
};
const queued = (message: Uint8Array): Uint8Array => {
  const packet = decodePacket(message);
  if (packet.kind !== "slice") throw new Error(packet.kind);
  return forQueue(message, packet, decompress(packet.compression, packet.payload, packet.rawBytes) as Uint8Array);
};

describe("the memory of slices", () => {
  it("is their message's, unless that is much longer", () => {
    const message = messageOf(new Uint8Array(1000), 1000, "none");
    assert.strictEqual(queued(message).buffer, message.buffer);
    const inMuch = new Uint8Array(100_000);
    inMuch.set(message);
    assert.notStrictEqual(queued(inMuch.subarray(0, message.length)).buffer, inMuch.buffer);
  });

  it("is joined in order, in one room, with the digest of all that came", async () => {
    const { deflateSync } = await import("node:zlib");
    const join = makeJoiner();
    const raws = [1, 2, 3].map((value) => new Uint8Array(value * 500).fill(value));
    const pieces = raws.map((raw, index) => {
      const isPacked = index === 1;
      const message = messageOf(isPacked ? deflateSync(raw) : raw.slice(), raw.length, isPacked ? "zlib" : "none");
      return { payload: queued(message) };
    });
    const whole = Buffer.concat(raws);
    const { bytes, digest } = join(7, pieces);
    assert.isTrue(whole.equals(bytes));
    assert.strictEqual(digest, crc32(whole, 7));
    const next = join(digest, [{ payload: Uint8Array.of(9) }]);
    assert.strictEqual(next.bytes.buffer, bytes.buffer);
    assert.strictEqual(next.digest, crc32(Uint8Array.of(9), digest));
    assert.deepStrictEqual([join(5, []).bytes.length, join(5, []).digest], [0, 5]);
  });
});
