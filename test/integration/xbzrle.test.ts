/** Capability `xbzrle` with real processes: deltas of pages that are dirtied again, over both lanes, and a worker that dies on the way. */
import type { MigrationInfo } from "@godwit/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HELD, letGo } from "./held.ts";
import { expectMoved } from "./outcome.ts";
import { MIB, openWorld, type World, workerOf } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const deltasOf = (info: MigrationInfo): number => info["xbzrle-cache"]?.pages ?? 0;

describe("a guest that writes a few bytes of each page again and again", () => {
  it.each(["nats", "auto"] as const)(
    "arrives whole by lane %s, in deltas, though a worker dies meanwhile",
    async (lane) => {
      const name = `counting-${lane}`;
      await world.startGuest({
        name,
        memoryBytes: 8 * MIB,
        workingSetBytes: 2 * MIB,
        dirtyRateBytesPerSecond: 16 * MIB,
        mix: { zero: 10, compressible: 0, random: 0, counted: 90 },
      });
      const journey = await world.migrate(name, "b", {
        parameters: { ...HELD, lane, "multifd-compression": lane === "nats" ? "none" : "zstd" },
        capabilities: { xbzrle: true, verify: true },
      });
      const before = deltasOf(await journey.until((info) => deltasOf(info) > 200));
      await world.kill(workerOf("a", 0));
      await journey.until((info) => deltasOf(info) > before + 200);
      await letGo(world, journey);
      const end = await expectMoved(world, journey, "b");
      expect(end.attempts).toBe(1);
      expect(end.verify).toMatchObject([{ "pages-damaged": 0 }]);
      const cache = end["xbzrle-cache"]!;
      // No more than the guest has memory.
      expect(cache["cache-size"]).toBe(8 * MIB);
      // Four words of each page, and what says where they are.
      expect(cache["encoding-rate"]).toBeGreaterThan(50);
    },
  );
});
