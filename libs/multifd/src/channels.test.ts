import { CHANNELS_MAX, PACKET_PAGES_MAX, PAGE_BYTES } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Channels from "./channels.ts";

const ITEM_BYTES_MAX = PACKET_PAGES_MAX * PAGE_BYTES;
const WORKERS = ["w0", "w1", "w2", "w3", "w4"];

type Step =
  | { readonly do: "up" | "down"; readonly worker: string }
  | { readonly do: "send"; readonly bytes: number }
  | { readonly do: "retire"; readonly pick: number };
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constantFrom("up" as const, "down" as const), worker: fc.constantFrom(...WORKERS) }),
  fc.record({ do: fc.constant("send" as const), bytes: fc.integer({ min: 1, max: ITEM_BYTES_MAX }) }),
  fc.record({ do: fc.constant("send" as const), bytes: fc.constant(ITEM_BYTES_MAX) }),
  fc.record({ do: fc.constant("retire" as const), pick: fc.nat(1000) }),
);

const loads = ({ lanes, workers }: Channels.Channels): number[] =>
  [...workers].map((worker) => lanes.filter((lane) => lane.worker === worker).length);
const inFlight = ({ lanes }: Channels.Channels): number => lanes.reduce((sum, lane) => sum + lane.inFlightBytes, 0);

/** Runs steps as the sender does, and calls `check` after each. */
const run = (count: number, all: ReadonlyArray<Step>, check: (channels: Channels.Channels) => void): void => {
  const channels = Channels.make(count);
  const sent: { readonly lane: Channels.Channel; readonly epoch: number; readonly bytes: number }[] = [];
  for (const each of all) {
    switch (each.do) {
      case "up":
        Channels.workerUp(channels, each.worker);
        break;
      case "down":
        Channels.workerDown(channels, each.worker);
        break;
      case "send": {
        const lane = Channels.roomiest(channels, 0);
        if (lane === null) break;
        expect(lane.worker).not.toBeNull();
        lane.inFlightBytes += each.bytes;
        sent.push({ lane, epoch: lane.epoch, bytes: each.bytes });
        break;
      }
      case "retire": {
        const [item] = sent.splice(each.pick % Math.max(1, sent.length), 1);
        if (item?.lane.epoch === item?.epoch && item !== undefined) item.lane.inFlightBytes -= item.bytes;
      }
    }
    check(channels);
  }
};
const counts = fc.oneof(fc.integer({ min: 1, max: 8 }), fc.constantFrom(16, 64, 128, 129, CHANNELS_MAX));
const histories = fc.array(step, { maxLength: 300 });

describe("channels", () => {
  it("are all bound while there is a worker, each to one that is there, and none when there is not", () => {
    fc.assert(
      fc.property(counts, histories, (count, all) => {
        run(count, all, ({ lanes, workers }) => {
          for (const { worker } of lanes) {
            if (workers.size === 0) expect(worker).toBeNull();
            else expect(workers.has(worker ?? "nobody")).toBe(true);
          }
        });
      }),
    );
  });

  it("are spread over the workers as evenly as can be, whoever comes and goes", () => {
    fc.assert(
      fc.property(counts, histories, (count, all) => {
        run(count, all, (channels) => {
          const each = loads(channels);
          if (each.length > 0) expect(Math.max(...each) - Math.min(...each)).toBeLessThanOrEqual(1);
        });
      }),
    );
  });

  it("keep within their windows: a lane's own, unless one item alone is larger, and the migration's always", () => {
    fc.assert(
      fc.property(counts, histories, (count, all) => {
        run(count, all, (channels) => {
          for (const lane of channels.lanes) {
            expect(lane.inFlightBytes).toBeGreaterThanOrEqual(0);
            expect(lane.inFlightBytes).toBeLessThanOrEqual(Math.max(channels.windowBytes, ITEM_BYTES_MAX));
          }
          expect(inFlight(channels)).toBeLessThanOrEqual(Channels.MIGRATION_WINDOW_BYTES);
        });
      }),
    );
  });

  it.each([1, 8, 128, CHANNELS_MAX])(
    "of a migration with %i never hold more than its window when all are filled",
    (count) => {
      const channels = Channels.make(count);
      Channels.workerUp(channels, "w");
      for (let items = 0; items < 100_000; items++) {
        const lane = Channels.roomiest(channels, 0);
        if (lane === null) break;
        lane.inFlightBytes += ITEM_BYTES_MAX;
      }
      expect(Channels.roomiest(channels, 0)).toBeNull();
      expect(inFlight(channels)).toBeLessThanOrEqual(Channels.MIGRATION_WINDOW_BYTES);
      // Nor less than half: a window that is never used makes the link wait.
      const whole = Math.min(Channels.MIGRATION_WINDOW_BYTES, count * Channels.CHANNEL_WINDOW_BYTES);
      expect(inFlight(channels)).toBeGreaterThan(whole / 2);
    },
  );

  it("are always to be had when nothing is in flight, however many there are and however large the item", () => {
    for (const count of [1, 2, 200, CHANNELS_MAX]) {
      const channels = Channels.make(count);
      expect(Channels.roomiest(channels, 0)).toBeNull();
      Channels.workerUp(channels, "w");
      expect(Channels.roomiest(channels, 0)).not.toBeNull();
    }
  });

  it("are used evenly: the next item goes where least is in flight", () => {
    const channels = Channels.make(4);
    Channels.workerUp(channels, "w");
    for (let item = 0; item < 8; item++) Channels.roomiest(channels, 0)!.inFlightBytes += 1000;
    expect(channels.lanes.map((lane) => lane.inFlightBytes)).toEqual([2000, 2000, 2000, 2000]);
  });

  it("that change hands get a higher epoch and an empty window; the others keep theirs", () => {
    fc.assert(
      fc.property(counts, fc.constantFrom(...WORKERS), fc.boolean(), (count, worker, up) => {
        const channels = Channels.make(count);
        for (const name of WORKERS.slice(0, 2)) Channels.workerUp(channels, name);
        for (const lane of channels.lanes) lane.inFlightBytes = 77;
        const was = channels.lanes.map((lane) => ({ ...lane }));
        const moved = up ? Channels.workerUp(channels, worker) : Channels.workerDown(channels, worker);
        for (const [index, lane] of channels.lanes.entries()) {
          const isMoved = moved.includes(lane);
          if (!isMoved) expect(lane.worker).toBe(was[index]!.worker);
          expect(lane.epoch).toBe(was[index]!.epoch + (isMoved ? 1 : 0));
          expect(lane.inFlightBytes).toBe(isMoved ? 0 : 77);
        }
      }),
      { numRuns: 30 },
    );
  });

  it("stay where they are when a worker is announced twice, or one goes that never came", () => {
    const channels = Channels.make(3);
    Channels.workerUp(channels, "w");
    expect(Channels.workerUp(channels, "w")).toEqual([]);
    expect(Channels.workerDown(channels, "stranger")).toEqual([]);
    expect(channels.lanes.every((lane) => lane.worker === "w" && lane.epoch === 1)).toBe(true);
  });

  it("under suspicion are passed over while another has room, though a dead worker's channel is always empty", () => {
    const channels = Channels.make(3);
    for (const worker of ["w0", "w1", "w2"]) Channels.workerUp(channels, worker);
    Channels.suspect(channels, 1, 1000);
    for (let item = 0; item < 6; item++) Channels.roomiest(channels, 1500)!.inFlightBytes += 1000;
    expect(channels.lanes.map((lane) => lane.inFlightBytes)).toEqual([3000, 0, 3000]);
    // Not for ever: who was only slow is tried again.
    expect(Channels.roomiest(channels, 2000)?.channel).toBe(1);
  });

  it("all of them under suspicion are better than none", () => {
    const channels = Channels.make(2);
    Channels.workerUp(channels, "w0");
    for (const channel of [0, 1]) Channels.suspect(channels, channel, 1000);
    expect(Channels.roomiest(channels, 1500)).not.toBeNull();
  });
});
