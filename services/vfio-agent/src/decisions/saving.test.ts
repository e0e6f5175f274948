import { Channels } from "@godwit/multifd";
import { dataStream } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { SavingByHand } from "./conformance/by-hand.ts";
import * as Slices from "./slices.ts";

const PRE_COPY = { preCopy: true };
const LIMIT = 300;

/** One device in PRE_COPY, and a worker. */
const inPrecopy = (features = {}, parameters = {}): SavingByHand => {
  const hand = new SavingByHand(1, parameters).opened(0, { ...PRE_COPY, ...features });
  return hand.happen({ _tag: "WorkerUp", worker: "w" }).arrived(0, "PRE_COPY");
};

describe("an agent that was restarted", () => {
  it("looks where the devices are before it says that they run again", () => {
    const hand = new SavingByHand(1, {}, "resumed");
    expect(hand.saving.phase).toBe("Resuming");
    expect(hand.asked[0]).toEqual({ _tag: "Open" });
    hand.opened(0, {}, "STOP_COPY");
    expect(hand.asked[0]).toEqual({ _tag: "Arc", to: "RUNNING" });
    hand.arrived(0, "RUNNING");
    expect(hand.saving.phase).toBe("Resumed");
  });

  it("gives a device up that is not there, and says so", () => {
    const hand = new SavingByHand(1, {}, "resumed");
    for (let tries = 0; tries < 5; tries++) hand.failed(0).tick(200);
    expect(hand.saving.phase).toBe("Resumed");
    expect(hand.saving.failure).toMatchObject({ code: "device-failed" });
    expect(hand.asked[0]).toBeUndefined();
  });

  it("stops a device whose guest is elsewhere, if it is still there", () => {
    const hand = new SavingByHand(2, {}, "discarded").opened(0, {}, "STOP_COPY").failed(1);
    expect(hand.asked[0]).toEqual({ _tag: "Arc", to: "STOP" });
    expect(hand.saving.phase).toBe("Discarding");
    hand.arrived(0, "STOP");
    expect(hand.saving.phase).toBe("Discarded");
    // And that was all.
    hand.tick(1000);
    expect(hand.asked).toEqual({});
  });
});

describe("a device at the source", () => {
  it("that is not there yet is waited for a second before it fails the attempt", () => {
    const hand = new SavingByHand(1);
    for (let tries = 0; tries < 4; tries++) hand.failed(0).tick(200);
    expect(hand.saving.failure).toBeNull();
    hand.opened(0);
    expect(hand.saving.phase).toBe("Precopy");
    const never = new SavingByHand(1);
    for (let tries = 0; tries < 5; tries++) never.failed(0).tick(200);
    expect(never.saving.failure).toMatchObject({ code: "device-failed" });
  });

  it("that never answers while its guest stands still fails when its budget is used up, whatever it was asked for", () => {
    const hand = inPrecopy();
    expect(hand.asked[0]).toEqual({ _tag: "Info" });
    hand.tick(5000).wanted("stopped");
    // What it was asked for while the guest ran counts from when it stood still.
    hand.tick(LIMIT);
    expect(hand.saving.failure).toBeNull();
    hand.tick(1);
    expect(hand.saving.failure).toMatchObject({ code: "device-over-budget", side: "source" });
    expect(hand.saving.failure?.reason).toMatch(/dev0.*301 ms.*300 ms/);
    // Nothing is due but the next report: no alarm rings in circles.
    expect(hand.wakesAt()).toBeGreaterThan(hand.now);
  });

  it("whose arc takes longer than downtime-limit fails by it, though it arrives in the end", () => {
    const hand = new SavingByHand(1).opened(0).info(0, null).wanted("stopped");
    hand.now += LIMIT + 1;
    hand.arrived(0, "STOP_COPY", LIMIT + 1);
    expect(hand.saving.failure?.reason).toMatch(/RUNNING -> STOP_COPY takes 301 ms/);
    expect(hand.saving.failure?.code).toBe("device-over-budget");
    const within = new SavingByHand(1).opened(0).info(0, null).wanted("stopped");
    within.now += LIMIT + 50;
    // By its own measure it kept to it: the rest was the event loop.
    within.arrived(0, "STOP_COPY", LIMIT);
    expect(within.saving.failure).toBeNull();
    expect(within.saving.phase).toBe("Stopped");
  });

  it("keeps to the counts and bytes that the destination queues, also when its reads are short", () => {
    const hand = inPrecopy({}, { "x-migration-max-queued-buffers": 3 }).info(0, 100_000);
    hand.read(0, 10).read(0, 10);
    expect(hand.asked[0]).toMatchObject({ _tag: "Read", offset: 20, bytesMax: 4096 });
    hand.read(0, 10);
    expect(hand.asked[0]).toBeUndefined();
    hand.applied(0);
    expect(hand.asked[0]).toMatchObject({ _tag: "Read", offset: 30 });
  });

  it("has given its initial data when it says that none is left, not when it has nothing for now", () => {
    const hand = inPrecopy().info(0, 5000).read(0, 3000);
    hand.read(0, 0);
    expect(hand.saving.devices[0]!.initialEnd).toBeNull();
    hand.tick(50).info(0, 2000).read(0, 2000).info(0, 0);
    expect(hand.saving.devices[0]!.initialEnd).toBe(5000);
    // What it gives later is not initial.
    hand.tick(50).info(0, 0, 700).read(0, 700).read(0, 0);
    expect(hand.saving.devices[0]!.initialEnd).toBe(5000);
  });

  it("that cannot tell its initial bytes has given them with its first pass", () => {
    const hand = inPrecopy().info(0, null).read(0, 3000).info(0, null).read(0, 0);
    expect(hand.saving.devices[0]!.initialEnd).toBe(3000);
  });

  it("that was discarded is led nowhere by a word that comes late", () => {
    const hand = new SavingByHand(1).opened(0).info(0, null).wanted("stopped").arrived(0, "STOP_COPY");
    hand.wanted("discarded").read(0, 0).arrived(0, "STOP");
    expect(hand.saving.phase).toBe("Discarded");
    for (const stage of ["precopy", "stopped", "resumed"] as const) hand.wanted(stage).tick(1000);
    expect(hand.saving.phase).toBe("Discarded");
    expect(hand.asked).toEqual({});
  });

  it("whose configuration space is larger than any is refused", () => {
    const hand = new SavingByHand(1).opened(0).info(0, null).wanted("stopped").arrived(0, "STOP_COPY").read(0, 0);
    hand.answer({ _tag: "ConfigRead", device: 0, bytes: 65_537, digest: 0 }, 0);
    expect(hand.saving.failure?.reason).toMatch(/65537 bytes/);
    expect(hand.saving.streams).toBeNull();
  });

  it("that does not go back to RUNNING is reset after three tries, and after six the guest goes on without it", () => {
    const hand = new SavingByHand(1)
      .opened(0)
      .info(0, null)
      .wanted("stopped")
      .arrived(0, "STOP_COPY")
      .wanted("resumed")
      .read(0, 0);
    const asked: unknown[] = [];
    for (let tries = 0; tries < 6; tries++) {
      asked.push(hand.asked[0]);
      hand.failed(0, "STOP").tick(200);
    }
    const arc = { _tag: "Arc", to: "RUNNING" };
    expect(asked).toEqual([arc, arc, arc, { _tag: "Reset" }, { _tag: "Reset" }, { _tag: "Reset" }]);
    expect(hand.saving.phase).toBe("Resumed");
    expect(hand.saving.failure).not.toBeNull();
  });
});

describe("devices that may write into each other", () => {
  it("are all quiet before the first one stops", () => {
    const hand = new SavingByHand(2).opened(0, { p2p: true }).opened(1, { p2p: true, preCopy: true });
    hand.info(0, null).arrived(1, "PRE_COPY").info(1, 0).wanted("stopped");
    expect(hand.asked[0]).toEqual({ _tag: "Arc", to: "RUNNING_P2P" });
    expect(hand.asked[1]).toEqual({ _tag: "Arc", to: "PRE_COPY_P2P" });
    hand.arrived(0, "RUNNING_P2P");
    expect(hand.asked[0]).toBeUndefined();
    hand.arrived(1, "PRE_COPY_P2P");
    expect(hand.asked).toEqual({ 0: { _tag: "Arc", to: "STOP_COPY" }, 1: { _tag: "Arc", to: "STOP_COPY" } });
  });

  it("all take writes again before the first one writes, on the way back as well", () => {
    const hand = new SavingByHand(2).opened(0, { p2p: true }).opened(1, { p2p: true });
    hand.info(0, null).info(1, null).wanted("stopped");
    for (const device of [0, 1]) hand.arrived(device, "RUNNING_P2P");
    for (const device of [0, 1]) hand.arrived(device, "STOP_COPY");
    hand.wanted("resumed");
    for (const device of [0, 1]) hand.read(device, 0);
    hand.arrived(0, "RUNNING_P2P");
    expect(hand.asked).toEqual({ 1: { _tag: "Arc", to: "RUNNING_P2P" } });
    hand.arrived(1, "RUNNING_P2P");
    expect(hand.asked).toEqual({ 0: { _tag: "Arc", to: "RUNNING" }, 1: { _tag: "Arc", to: "RUNNING" } });
  });
});

describe("with multifd transfer off", () => {
  const OFF = { "x-migration-multifd-transfer": "off" } as const;

  it("a device without PRE_COPY keeps none behind it from being read", () => {
    const hand = new SavingByHand(2, OFF).opened(0).opened(1, PRE_COPY).arrived(1, "PRE_COPY").info(1, 5000);
    expect(hand.asked[1]).toMatchObject({ _tag: "Read" });
  });

  it("all initial data is read before a device is read for what is new, and one device at a time", () => {
    const hand = new SavingByHand(2, OFF).opened(0, PRE_COPY).opened(1, PRE_COPY);
    for (const device of [0, 1]) hand.arrived(device, "PRE_COPY").info(device, 5000);
    expect(hand.asked).toMatchObject({ 0: { _tag: "Read" } });
    expect(hand.asked[1]).toBeUndefined();
    hand.read(0, 5000).info(0, 0, 9999);
    expect(hand.asked[0]).toBeUndefined();
    expect(hand.asked[1]).toMatchObject({ _tag: "Read" });
    hand.read(1, 5000).info(1, 0, 9999);
    expect(hand.asked[0]).toMatchObject({ _tag: "Read" });
    expect(hand.asked[1]).toBeUndefined();
  });

  it("the first channel alone is used, with the window of all", () => {
    const hand = new SavingByHand(1, { ...OFF, "multifd-channels": 4 }, "precopy", 64);
    hand.opened(0, PRE_COPY).happen({ _tag: "WorkerUp", worker: "w" }).arrived(0, "PRE_COPY").info(0, 1e9);
    const sent: number[] = [];
    for (let reads = 0; reads < 30; reads++) {
      hand.read(0, 1024 ** 2);
      for (const { channel, bytes } of hand.sent()) {
        expect(channel).toBe(0);
        sent.push(bytes);
      }
    }
    expect(sent.reduce((sum, bytes) => sum + bytes, 0)).toBe(4 * Channels.CHANNEL_WINDOW_BYTES);
  });
});

describe("slices on their way", () => {
  it("never exceed a channel's window, nor the migration's", () => {
    const hand = new SavingByHand(4, { "multifd-channels": 2 }, "precopy", 64);
    for (let device = 0; device < 4; device++) hand.opened(device, PRE_COPY);
    hand.happen({ _tag: "WorkerUp", worker: "w" });
    for (let device = 0; device < 4; device++) hand.arrived(device, "PRE_COPY").info(device, 1e9);
    for (let reads = 0; reads < 100; reads++) {
      const device = reads % 4;
      if (hand.asked[device]?._tag === "Read") hand.read(device, 1024 ** 2);
      for (const { inFlightBytes } of hand.saving.channels.lanes)
        expect(inFlightBytes).toBeLessThanOrEqual(Channels.CHANNEL_WINDOW_BYTES);
    }
    expect(hand.saving.channels.lanes[0]!.inFlightBytes).toBe(Channels.CHANNEL_WINDOW_BYTES);
  });

  it("that are late go again while the devices stop, too", () => {
    const hand = inPrecopy({ p2p: true }).info(0, 5000).read(0, 100).wanted("stopped");
    hand.tick(60);
    expect(hand.saving.phase).toBe("Quiescing");
    expect(hand.sent().map(({ item }) => item)).toEqual([0]);
  });

  it("of a guest that goes on are nobody's any more: no alarm rings for them", () => {
    const hand = inPrecopy().info(0, 5000).read(0, 100).wanted("resumed").tick(5000);
    expect(hand.sent()).toEqual([]);
    expect(hand.wakesAt()).toBeGreaterThan(hand.now);
  });

  it("are not held up by max-bandwidth once the guest stands still", () => {
    const hand = inPrecopy({ p2p: true }, { "max-bandwidth": 2000 }).info(0, 100_000).read(0, 4096).read(0, 4096);
    expect(hand.sent()).toEqual([]);
    hand.wanted("stopped");
    expect(hand.sent()).toHaveLength(1);
    expect(Slices.openBytes(hand.saving.slices, dataStream(0))).toBe(8192);
  });

  it("that workers refuse again and again end the attempt, with the reason", () => {
    const hand = inPrecopy().info(0, 5000).read(0, 100);
    for (let tries = 0; tries < 20; tries++)
      hand.happen({ _tag: "Refused", items: Uint32Array.of(0), reason: "ENOENT" });
    expect(hand.saving.failure).toMatchObject({ code: "device-failed", step: "send device state" });
    expect(hand.saving.failure?.reason).toMatch(/ENOENT/);
  });

  it("give their memory back only when all before them has arrived", () => {
    const hand = inPrecopy().info(0, 5000).read(0, 100).read(0, 100);
    hand.applied(1);
    expect(Slices.heldBytes(hand.saving.slices, dataStream(0))).toBe(200);
    hand.applied(0);
    expect(Slices.heldBytes(hand.saving.slices, dataStream(0))).toBe(0);
  });

  it("keep to half of a max-bandwidth that was changed meanwhile; a command that is older changes nothing", () => {
    const hand = inPrecopy({}, { "max-bandwidth": 2000 });
    const { parameters } = hand.saving;
    hand.tuned({ ...parameters, "max-bandwidth": 8000 }, 2).tuned(parameters, 1);
    expect(hand.saving.pace.bytesPerSecond).toBe(4000);
  });

  it("of a guest that is not here any more are discarded, whoever should have said so", () => {
    const hand = inPrecopy().happen({ _tag: "GuestGone" });
    expect(hand.saving.phase).toBe("Discarding");
  });
});
