import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { makeRing, PACKET_BYTES_MAX, put, take } from "./packet-ring.ts";

describe("a ring of packets", () => {
  it("gives back each packet with its length and its moment, in order, over and over", () => {
    const ring = makeRing(3);
    for (let n = 0; n < 10; n++) {
      for (const length of [n + 1, PACKET_BYTES_MAX])
        put(ring, (room) => {
          room.fill(n, 0, length);
          return { length, dueMs: n + length };
        });
      for (const length of [n + 1, PACKET_BYTES_MAX])
        take(ring, (packet, dueMs) => {
          expect(packet.length).toBe(length);
          expect([packet[0], packet.at(-1)]).toEqual([n, n]);
          expect(dueMs).toBe(n + length);
        });
    }
  });

  it("loses and doubles nothing when a thread puts more than there is room for", () => {
    const ring = makeRing(2);
    const packets = 5000;
    const thread = `
      const { workerData: { ring, url, packets } } = require("node:worker_threads");
      import(url).then(({ put }) => {
        for (let n = 0; n < packets; n++)
          put(ring, (room) => {
            new DataView(room.buffer, room.byteOffset).setUint32(0, n);
            return { length: 4, dueMs: n };
          });
      });`;
    const url = new URL("./packet-ring.ts", import.meta.url).href;
    const worker = new Worker(thread, { eval: true, workerData: { ring, url, packets } });
    for (let n = 0; n < packets; n++)
      take(ring, (packet, dueMs) => {
        expect(new DataView(packet.buffer, packet.byteOffset).getUint32(0)).toBe(n);
        expect(dueMs).toBe(n);
      });
    return worker.terminate();
  });
});
