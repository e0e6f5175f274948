import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deviceStreamExport } from "@godwit/memory";
import { decodePacket, PACKET_HEADER_BYTES, SLICE_BYTES_MAX } from "@godwit/protocol";
import fc from "fast-check";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
// Whoever reads it.
import { makePacker, PACKET_BYTES_MAX } from "../../multifd-worker/src/packing.ts";
import { openArena } from "./arena.ts";

const MIGRATION = "0123456789abcdef";
const RING_BYTES = 1000;

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "godwit-arena-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const sliceOf = (stream: number, offset: number, bytes: number): Uint8Array => {
  const packer = makePacker(directory);
  try {
    const buffer = new Uint8Array(PACKET_BYTES_MAX);
    const shared = { migration: MIGRATION, epoch: 1, round: 1, item: 0, channel: 0, channelEpoch: 1 };
    const how = { compression: "none", level: 1, deadline: 0, lane: "nats" } as const;
    const packet = packer.pack({ kind: "slice", ...shared, ...how, stream, offset, bytes }, "b", buffer);
    assert.strictEqual(decodePacket(packet).kind, "slice");
    return packet.slice(PACKET_HEADER_BYTES);
  } finally {
    packer.close();
  }
};

describe("the arena of device state", () => {
  it("gives workers the bytes of a stream by their offsets, however it goes round, in memory that does not grow", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: RING_BYTES / 2 }), { minLength: 1, maxLength: 20 }), (lengths) => {
        const arena = openArena(directory, { migration: MIGRATION, destination: "b" }, 1, RING_BYTES);
        let offset = 0;
        for (const [index, bytes] of lengths.entries()) {
          const piece = Uint8Array.from({ length: bytes }, (_, at) => (offset + at + index) & 0xff);
          arena.write(1, offset, piece, offset);
          assert.deepStrictEqual(sliceOf(1, offset, bytes), piece);
          offset += bytes;
        }
        assert.strictEqual(statSync(deviceStreamExport(directory, MIGRATION, 1, 1)).size, RING_BYTES);
        arena.remove();
        assert.deepStrictEqual(readdirSync(join(directory, "vfio")), []);
      }),
      { numRuns: 50 },
    );
  });

  it("refuses to overwrite what is not acknowledged, and to give what is not there", () => {
    const arena = openArena(directory, { migration: MIGRATION, destination: "b" }, 1, RING_BYTES);
    assert.throws(() => arena.write(1, 0, new Uint8Array(RING_BYTES + 1), 0), /do not fit/);
    arena.write(1, 0, new Uint8Array(RING_BYTES), 0);
    // Would overwrite what somebody may still need.
    assert.throws(() => arena.write(1, RING_BYTES, new Uint8Array(2), 1), /do not fit/);
    arena.write(1, RING_BYTES, new Uint8Array(2), 2);
    arena.remove();
    assert.throws(() => sliceOf(1, 0, Math.min(10, SLICE_BYTES_MAX)), /does not go from here/);
  });
});
