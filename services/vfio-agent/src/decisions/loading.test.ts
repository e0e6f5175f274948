import { describe, expect, it } from "vitest";
import { LoadingByHand } from "./conformance/by-hand.ts";
import { pendingAcks } from "./loading.ts";

const LIMIT = 300;
const PRE_COPY = { preCopy: true };

/** One device in RESUMING. */
const ready = (parameters = {}): LoadingByHand =>
  new LoadingByHand(1, parameters).opened(0, PRE_COPY).arrived(0, "RESUMING");

describe("an agent at the destination that was restarted", () => {
  it("starts the devices, which it has to open first, before it says that they run", () => {
    const hand = new LoadingByHand(1, {}, "running");
    expect(hand.loading.phase).toBe("Starting");
    expect(hand.asked[0]).toEqual({ _tag: "Open" });
    hand.opened(0, {}, "STOP");
    expect(hand.asked[0]).toEqual({ _tag: "Arc", to: "RUNNING" });
    expect(hand.loading.phase).toBe("Starting");
    hand.arrived(0, "RUNNING");
    expect(hand.loading.phase).toBe("Running");
  });

  it("does not keep the guest from running without a device that is not there", () => {
    const hand = new LoadingByHand(1, {}, "running");
    for (let tries = 0; tries < 5; tries++) hand.failed(0).tick(200);
    expect(hand.loading.phase).toBe("Running");
    expect(hand.loading.failure).toMatchObject({ code: "device-failed" });
  });

  it("stops what it finds before it says that it was discarded", () => {
    const hand = new LoadingByHand(1, {}, "discarded").opened(0, {}, "RESUMING");
    expect(hand.asked[0]).toEqual({ _tag: "Reset" });
    hand.arrived(0, "RUNNING");
    expect(hand.asked[0]).toEqual({ _tag: "Arc", to: "STOP" });
    expect(hand.loading.phase).toBe("Discarding");
    hand.arrived(0, "STOP");
    expect(hand.loading.phase).toBe("Discarded");
  });

  it("resets a device that is in RESUMING with half of somebody's stream", () => {
    const hand = new LoadingByHand(1).opened(0, PRE_COPY, "RESUMING");
    expect(hand.asked[0]).toEqual({ _tag: "Reset" });
    hand.arrived(0, "RUNNING");
    expect(hand.asked[0]).toEqual({ _tag: "Arc", to: "RESUMING" });
    expect(hand.loading.phase).toBe("Opening");
    hand.arrived(0, "RESUMING");
    expect(hand.loading.phase).toBe("Ready");
  });
});

describe("a device at the destination", () => {
  it("has what it has written acknowledged, once it was written, and again whenever a copy comes", () => {
    const hand = ready().slice(0, 0, 100);
    expect(hand.asked[0]).toMatchObject({ _tag: "Write" });
    expect(hand.acknowledged()).toEqual([]);
    hand.slice(0, 0, 100);
    expect(hand.acknowledged()).toEqual([]);
    hand.written();
    expect(hand.acknowledged()).toEqual([0]);
    hand.slice(0, 0, 100);
    expect(hand.acknowledged()).toEqual([0]);
  });

  it("takes what comes only once it is in RESUMING", () => {
    const hand = new LoadingByHand(1).opened(0, PRE_COPY).slice(0, 0, 100).arrived(0, "RESUMING");
    expect(hand.asked).toEqual({});
    expect(hand.slice(0, 0, 100).asked[0]).toMatchObject({ _tag: "Write" });
  });

  it("whose stream was cut in two ways fails: nobody knows which bytes are true", () => {
    const hand = ready().slice(0, 0, 100).written().slice(1, 50, 100);
    expect(hand.loading.failure).toMatchObject({ code: "device-failed", side: "destination" });
  });

  it("goes to STOP when it holds exactly what the record promises, and not before it is asked to", () => {
    const hand = ready().slice(0, 0, 100).written(0, 7);
    expect(hand.asked).toEqual({});
    hand.happen({
      _tag: "Wanted",
      stage: "loaded",
      memoryLoaded: true,
      streams: [promised({ bytes: 100, digest: 7 })],
    });
    expect(hand.asked[0]).toEqual({ _tag: "Arc", to: "STOP" });
    expect(hand.loading.phase).toBe("Ready");
    hand.arrived(0, "STOP");
    expect(hand.loading.phase).toBe("Loaded");
  });

  it.each([
    ["other bytes", { bytes: 100, digest: 8 }, /crc32 is 7, the source saved 8/],
    ["more bytes", { bytes: 99, digest: 7 }, /100 bytes came, the source saved 99/],
    ["another name", { bytes: 100, digest: 7, device: "dev9" }, /device dev9/],
  ])("that holds %s than was promised fails instead", (_what, stream, reason) => {
    const hand = ready().slice(0, 0, 100).written(0, 7);
    hand.happen({ _tag: "Wanted", stage: "loaded", memoryLoaded: true, streams: [promised(stream)] });
    expect(hand.loading.failure?.reason).toMatch(reason);
    expect(hand.asked).toEqual({});
  });

  it("whose configuration space is another than was saved fails", () => {
    const hand = ready();
    hand.happen({ _tag: "Wanted", stage: "loaded", memoryLoaded: true, streams: [promised({ "config-bytes": 10 })] });
    hand.slice(0, 0, 10, 2);
    expect(hand.asked[0]).toMatchObject({ _tag: "WriteConfig" });
    hand.answer({ _tag: "ConfigWritten", device: 0, digest: 5 }, 0);
    expect(hand.loading.failure?.reason).toMatch(/crc32 of its configuration space is 5, the source saved 0/);
    expect(hand.asked).toEqual({});
  });

  it("gets its configuration space as a whole, after its data, and after the memory where that is wanted", () => {
    const hand = ready({ "x-migration-load-config-after-iter": "on", "x-migration-max-queued-buffers": 1 });
    for (let n = 0; n < 3; n++) hand.slice(n, n * 4096, 4096, 2);
    hand.wanted("loaded", 100, 3 * 4096, false);
    expect(hand.asked).toEqual({});
    hand.slice(9, 0, 100).written();
    expect(hand.asked).toEqual({});
    hand.wanted("loaded", 100, 3 * 4096, true);
    expect(hand.asked[0]).toMatchObject({ _tag: "WriteConfig", pieces: { length: 3 } });
  });

  it("that takes longer than downtime-limit to load fails by it, also one that never answers", () => {
    const never = ready().wanted("loaded");
    expect(never.asked[0]).toEqual({ _tag: "Arc", to: "STOP" });
    never.tick(LIMIT);
    expect(never.loading.failure).toBeNull();
    never.tick(1);
    expect(never.loading.failure).toMatchObject({ code: "device-over-budget", side: "destination" });
    expect(never.wakesAt()).toBeGreaterThan(never.now);
    const late = ready().wanted("loaded");
    late.arrived(0, "STOP", LIMIT + 1);
    expect(late.loading.failure).toMatchObject({ code: "device-over-budget" });
  });

  it("that has failed rings no alarm in circles while it waits for the loader's word", () => {
    const hand = ready().slice(0, 0, 100).failed(0).tick(5000);
    expect(hand.wakesAt()).toBeGreaterThan(hand.now);
  });

  it("has loaded its initial data exactly when it was written as far as the source says that it goes", () => {
    const hand = ready().slice(0, 0, 100);
    expect(pendingAcks(hand.loading)).toEqual(["dev0"]);
    hand.written();
    // Where it ends is not known yet.
    expect(pendingAcks(hand.loading)).toEqual(["dev0"]);
    hand.happen({ _tag: "InitialEnds", device: "dev0", at: 150 });
    expect(pendingAcks(hand.loading)).toEqual(["dev0"]);
    hand.slice(1, 100, 50);
    expect(pendingAcks(hand.loading)).toEqual(["dev0"]);
    hand.written();
    expect(pendingAcks(hand.loading)).toEqual([]);
    expect(hand.effects).toContainEqual({ _tag: "Report" });
  });

  it("that cannot be precopied at this side advises no switchover-ack", () => {
    expect(pendingAcks(new LoadingByHand(1).opened(0).loading)).toEqual([]);
  });

  it("that may run is not discarded by a word that comes late", () => {
    const hand = ready().wanted("loaded").arrived(0, "STOP").wanted("running").wanted("discarded");
    expect(hand.asked[0]).toEqual({ _tag: "Arc", to: "RUNNING" });
    expect(hand.loading.phase).toBe("Starting");
  });
});

describe("devices at the destination", () => {
  it("all take writes before the first one writes, also while one has to be asked again", () => {
    const hand = new LoadingByHand(3, {}, "running");
    hand.opened(0, { p2p: true }, "STOP").opened(1, { p2p: true }, "STOP").opened(2, {}, "STOP");
    hand.arrived(0, "RUNNING_P2P").failed(1, "STOP");
    expect(hand.asked).toEqual({});
    hand.tick(200);
    expect(hand.asked).toEqual({ 1: { _tag: "Arc", to: "RUNNING_P2P" } });
    hand.arrived(1, "RUNNING_P2P");
    const run = { _tag: "Arc", to: "RUNNING" };
    expect(hand.asked).toEqual({ 0: run, 1: run, 2: run });
  });

  it("do not wait for one that was given up", () => {
    const hand = new LoadingByHand(2, {}, "running").opened(0, { p2p: true }, "RUNNING_P2P");
    hand.opened(1, { p2p: true }, "STOP");
    for (let tries = 0; tries < 6; tries++) hand.failed(1, "STOP").tick(200);
    expect(hand.asked).toEqual({ 0: { _tag: "Arc", to: "RUNNING" } });
    expect(hand.arrived(0, "RUNNING").loading.phase).toBe("Running");
  });
});

const promised = (change: object) => ({
  device: "dev0",
  bytes: 0,
  digest: 0,
  "config-bytes": 0,
  "config-digest": 0,
  ...change,
});
