import { probeUserfaultfd } from "@godwit/host";
import { decodePacket, PAGE_BYTES } from "@godwit/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { expectMoved } from "./outcome.ts";
import { joinAsStranger, type Stranger } from "./stranger.ts";
import { MIB, openWorld, type World } from "./world.ts";

let world: World;
let stranger: Stranger;
beforeAll(async () => {
  world = await openWorld();
  stranger = await joinAsStranger(world, "godwit.m.*.*.*.ch.*");
});
afterAll(async () => {
  await stranger?.close();
  await world?.close();
});

const userfaultfd = probeUserfaultfd();
let guests = 0;

/** Every value of every parameter once, and each pair of neighbours that share code. */
const SETS = [
  { compression: "none", detection: "none", tracker: "userfaultfd" },
  { compression: "zlib", level: 1, detection: "legacy", tracker: "content" },
  { compression: "zlib", level: 9, detection: "multifd", tracker: "userfaultfd" },
  { compression: "zstd", level: 1, detection: "legacy", tracker: "userfaultfd" },
  { compression: "zstd", level: 20, detection: "none", tracker: "content" },
  { compression: "none", detection: "multifd", tracker: "content" },
] as const;

describe("a guest arrives whole", () => {
  it.for(SETS)(
    "$compression compressed, zero pages found by $detection, writes seen by $tracker",
    async (set, { skip }) => {
      if (set.tracker === "userfaultfd" && userfaultfd._tag === "Missing") skip(userfaultfd.reason);
      const name = `set${++guests}`;
      await world.startGuest({ name, memoryBytes: 16 * MIB, dirtyRateBytesPerSecond: MIB / 2 });
      const from = stranger.heard.length;
      const level = "level" in set ? { [`multifd-${set.compression}-level`]: set.level } : {};
      const journey = await world.migrate(name, "b", {
        parameters: {
          "multifd-compression": set.compression,
          "zero-page-detection": set.detection,
          "dirty-tracker": set.tracker,
          "max-bandwidth": 0,
          ...level,
        },
      });
      const end = await expectMoved(world, journey, "b");
      expect(end["dirty-tracker"]).toBe(set.tracker);
      if (set.detection === "none") expect(end.ram!.duplicate).toBe(0);
      else expect(end.ram!.duplicate).toBeGreaterThan(0);
      // Looked at on the wire: what was sent twice on a busy machine counts in `transferred`, and says nothing of compression.
      const packets = stranger.heard.slice(from).map(({ data }) => decodePacket(data));
      const bytes = { pages: 0, raw: 0, payload: 0 };
      for (const packet of packets) {
        if (packet.kind === "malformed") throw new Error(packet.reason);
        if (packet.kind === "check") continue;
        if (packet.kind === "pages") bytes.pages += packet.normalPages * PAGE_BYTES;
        bytes.raw += packet.rawBytes;
        bytes.payload += packet.payload.length;
      }
      expect(bytes.pages).toBeGreaterThanOrEqual(end.ram!["normal-bytes"]);
      // Zero pages that nobody looks for are copies of each other; all others differ.
      if (set.detection === "none") expect(bytes.raw).toBeLessThan(0.8 * bytes.pages);
      // Of the guest's pages that are not zero half can be compressed.
      if (set.compression === "none") expect(bytes.payload).toBe(bytes.raw);
      else expect(bytes.payload).toBeLessThan(0.8 * bytes.raw);
    },
  );

  it("with compression left to be found out: pages that compress are compressed where bandwidth is short", async () => {
    await world.startGuest({
      name: "undecided",
      memoryBytes: 32 * MIB,
      mix: { zero: 0, compressible: 100, random: 0 },
      // Less than what is sent, or it would be sent over and over until the limit is no longer what is short.
      dirtyRateBytesPerSecond: MIB / 4,
    });
    const from = stranger.heard.length;
    const parameters = { "multifd-compression": "auto", "max-bandwidth": 3 * MIB };
    const journey = await world.migrate("undecided", "b", { parameters });
    const end = await expectMoved(world, journey, "b");
    expect(end.ram!["multifd-codec"]).toBe("zstd");
    const packets = stranger.heard.slice(from).map(({ data }) => decodePacket(data));
    const codecs = new Set(packets.map((packet) => (packet.kind === "pages" ? packet.compression : "none")));
    // Both were tried.
    expect([...codecs].sort()).toEqual(["none", "zstd"]);
    expect(end.ram!.transferred).toBeLessThan(0.8 * end.ram!["normal-bytes"]);
  });
});
