import { PARAMETER_DEFAULTS } from "@godwit/protocol";
import { assert, describe, it } from "vitest";
import { makeLoading, step } from "./loading.ts";
import type { Loading, LoadingEvent } from "./loading-state.ts";

const STREAMS = [{ device: "nic0", bytes: 0, digest: 0, "config-bytes": 0, "config-digest": 0 }];
const wanted = (stage: "ready" | "loaded"): LoadingEvent => ({
  _tag: "Wanted",
  stage,
  streams: STREAMS,
  memoryLoaded: true,
});

/** A device that is just finding out whether its stream was whole, since 0. */
const finding = (): Loading => {
  const loading = makeLoading({
    migration: "m",
    epoch: 1,
    guest: "vm1",
    incarnation: "i",
    parameters: { ...PARAMETER_DEFAULTS, "downtime-limit": 1 },
    configAfterMemory: false,
    devices: [{ device: "nic0", provider: "simulated", p2p: true, "pre-copy": true, "dirty-logging": false }],
    want: "ready",
    now: 0,
  });
  const features = { stopCopy: true, p2p: true, preCopy: true };
  step(loading, { _tag: "Tick" }, 0);
  step(loading, { _tag: "Opened", device: 0, features, state: "RUNNING", switchoverMs: 0 }, 0);
  step(loading, { _tag: "Arrived", device: 0, state: "RESUMING", ms: 0 }, 0);
  step(loading, wanted("loaded"), 0);
  assert.deepStrictEqual(loading.devices[0]!.busy, { _tag: "Arc", to: "STOP" });
  return loading;
};

describe("what a device may take to load its state", () => {
  it("is downtime-limit", () => {
    const loading = finding();
    step(loading, { _tag: "Arrived", device: 0, state: "STOP", ms: 100 }, 100);
    assert.strictEqual(loading.failure?.code, "device-over-budget");
  });

  it("is what downtime-limit was set to meanwhile, which the source tells", () => {
    const loading = finding();
    step(loading, { _tag: "LimitTold", downtimeLimitMs: 300 }, 0);
    step(loading, { _tag: "Tick" }, 50);
    step(loading, { _tag: "Arrived", device: 0, state: "STOP", ms: 100 }, 100);
    assert.isNull(loading.failure);
    assert.strictEqual(loading.phase, "Loaded");
  });
});
