import { type ErrorCode, type Failure, PARAMETER_DEFAULTS, type PassReport } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type DevicesAtPass,
  deadlinePassed,
  expectedDowntimeMs,
  FIXED_COST_MS,
  judge,
  NO_DEVICES,
  type Progress,
} from "./convergence.ts";
import { devicesOf, vfioOf } from "./devices.ts";
import type { Migration } from "./migration-state.ts";
import { commandsIn, destinationReport, sourceReport, until, verdict, Watch } from "./migration-watch.conformance.ts";
import { nextAfter } from "./moves.ts";

const PARAMETERS = { ...PARAMETER_DEFAULTS, "downtime-limit": 300, "stall-timeout": 1000, "migration-deadline": 5000 };
const PROGRESS: Progress = { startedAt: 0, bestRemaining: 0, bestAt: 0 };
/** Nothing of RAM is left. */
const DONE = verdict(0) as PassReport;
const devices = (change: Partial<DevicesAtPass>): DevicesAtPass => ({ ...NO_DEVICES, ...change });

describe("the predicted downtime", () => {
  it("counts what the devices owe, at the rate of their own state, and their arcs at both sides", () => {
    const alone = expectedDowntimeMs(DONE, PARAMETERS);
    expect(alone).toBe(1 + FIXED_COST_MS);
    const owing = devices({ remaining: 50_000_000, bandwidth: 500_000_000, switchoverMs: 70 });
    expect(expectedDowntimeMs(DONE, PARAMETERS, owing)).toBe(alone + 100 + 70);
  });

  it("takes the rate of RAM for devices that were not measured, and the operator's word before both", () => {
    const owing = devices({ remaining: 50_000_000 });
    expect(expectedDowntimeMs(DONE, PARAMETERS, owing)).toBe(1 + FIXED_COST_MS + 50);
    const told = { ...PARAMETERS, "avail-switchover-bandwidth": 5e8 };
    expect(expectedDowntimeMs(DONE, told, { ...owing, bandwidth: 1 })).toBe(1 + FIXED_COST_MS + 100);
    expect(expectedDowntimeMs({ ...DONE, bandwidth: 0 }, PARAMETERS, owing)).toBe(Number.POSITIVE_INFINITY);
  });

  it("is never lower with devices than without, and never falls as they owe more or take longer", () => {
    const some = fc.record({ remaining: fc.nat(1e9), bandwidth: fc.nat(1e9), switchoverMs: fc.nat(5000) });
    fc.assert(
      fc.property(some, fc.nat(1e9), fc.nat(5000), (owing, bytes, ms) => {
        const now = expectedDowntimeMs(DONE, PARAMETERS, devices(owing));
        expect(now).toBeGreaterThanOrEqual(expectedDowntimeMs(DONE, PARAMETERS));
        const more = { ...owing, remaining: owing.remaining + bytes, switchoverMs: owing.switchoverMs + ms };
        expect(expectedDowntimeMs(DONE, PARAMETERS, devices(more))).toBeGreaterThanOrEqual(now);
      }),
    );
  });
});

describe("a pass of a guest with devices", () => {
  it.each([[null], [["net0"]]])(
    "does not lead to the switchover while switchover-ack is missing: %j",
    (unacknowledged) => {
      const waiting = devices({ unacknowledged });
      expect(judge(DONE, PROGRESS, PARAMETERS, 500, waiting)._tag).toBe("Iterate");
      // Not even of a guest that stands still: its device would start without its resources.
      expect(judge({ ...DONE, running: false }, PROGRESS, PARAMETERS, 500, waiting)._tag).toBe("Iterate");
      expect(judge(DONE, PROGRESS, PARAMETERS, 500, devices({ unacknowledged: [] }))._tag).toBe("SwitchOver");
    },
  );

  it("gives up by stall-timeout, and names the devices that did not load their initial data", () => {
    const verdictAt = (now: number, unacknowledged: DevicesAtPass["unacknowledged"]) =>
      judge(DONE, PROGRESS, PARAMETERS, now, devices({ unacknowledged }));
    expect(verdictAt(999, ["net0"])._tag).toBe("Iterate");
    expect(verdictAt(1000, ["net0", "gpu0"])).toMatchObject({
      _tag: "GiveUp",
      failure: {
        code: "switchover-ack-missing",
        reason: expect.stringMatching(/net0, gpu0.*stall-timeout \(1000 ms\)/),
      },
    });
    expect(verdictAt(1000, null)).toMatchObject({
      failure: { code: "switchover-ack-missing", reason: expect.stringMatching(/did not say/) },
    });
  });

  it("that brings the devices forward is progress, also when RAM has nothing left to gain", () => {
    const progress = { ...PROGRESS, bestRemaining: 2_000_000_000 };
    const owing = devices({ remaining: 1_900_000_000, bandwidth: 1e9 });
    expect(judge(DONE, progress, PARAMETERS, 1500, owing)).toMatchObject({
      _tag: "Iterate",
      progress: { bestRemaining: 1_900_000_000, bestAt: 1500 },
    });
  });

  it("that stalls because devices take too long to stop and start says so", () => {
    const slow = judge(DONE, PROGRESS, PARAMETERS, 1000, devices({ switchoverMs: 900 }));
    expect(slow).toMatchObject({
      _tag: "GiveUp",
      failure: { code: "stalled", reason: expect.stringMatching(/VFIO devices.*900 ms/) },
    });
  });
});

describe("migration-deadline", () => {
  it("says that switchover-ack is what is missing, if it is", () => {
    const at = (now: number, unacknowledged: DevicesAtPass["unacknowledged"]) =>
      deadlinePassed(PROGRESS, PARAMETERS, now, devices({ unacknowledged }));
    expect(at(4999, ["net0"])).toBeNull();
    expect(at(5000, ["net0"])).toMatchObject({ code: "switchover-ack-missing", reason: expect.stringMatching(/net0/) });
    expect(at(5000, [])).toMatchObject({ code: "migration-deadline" });
  });
});

const info = (device: string, change: object = {}) => ({
  device,
  provider: "simulated",
  state: "PRE_COPY",
  "initial-bytes": 0,
  "dirty-bytes": 0,
  "stop-copy-bytes": 0,
  transferred: 10,
  queued: 0,
  arcs: [],
  "switchover-ms": 0,
  ...change,
});
const withDevices = (watch: Watch, ack: boolean, pending?: ReadonlyArray<string>): Migration => {
  const { migration } = watch;
  const offer = sourceReport(migration, {}).offer!;
  return {
    ...migration,
    capabilities: { ...migration.capabilities, "switchover-ack": ack },
    sourceReport: sourceReport(migration, {
      offer: { ...offer, devices: [{ device: "net0" }] as never },
      verdict: { ...verdict(0)!, devices: { remaining: 9, bandwidth: 8, "switchover-ms": 20 } },
      devices: [info("net0"), info("net1")],
    }),
    destinationReport: destinationReport(migration, {
      devices: [info("net0", { "switchover-ms": 30 }), info("net1", { "switchover-ms": 50 })],
      ...(pending === undefined ? {} : { "switchover-ack": { advised: 2, pending } }),
    }),
  };
};

describe("what both sides report of their devices", () => {
  it("comes together: they stop side by side, and start side by side after that", () => {
    expect(devicesOf(withDevices(new Watch(), false))).toEqual({
      remaining: 9,
      bandwidth: 8,
      switchoverMs: 70,
      unacknowledged: [],
    });
  });

  it("must include the destination's word, with switchover-ack", () => {
    expect(devicesOf(withDevices(new Watch(), true)).unacknowledged).toBeNull();
    expect(devicesOf(withDevices(new Watch(), true, ["net1"])).unacknowledged).toEqual(["net1"]);
    expect(devicesOf(withDevices(new Watch(), true, [])).unacknowledged).toEqual([]);
  });

  it("is nothing of a guest without devices, whatever the capability says", () => {
    const { migration } = new Watch();
    const capabilities = { ...migration.capabilities, "switchover-ack": true };
    expect(devicesOf({ ...migration, capabilities })).toEqual(NO_DEVICES);
    expect(vfioOf(migration)).toEqual({});
  });

  it("is shown as query-migrate's `vfio`", () => {
    const { vfio } = vfioOf(withDevices(new Watch(), false));
    expect(vfio).toMatchObject({ transferred: 20, source: { length: 2 }, destination: { length: 2 } });
  });
});

describe("an attempt that has failed for its devices", () => {
  const failureOf = (code: ErrorCode): Failure => ({ code, actor: "vfio-agent", step: "move", reason: "so" });

  it("is tried again when the agent may be started again, or the device's latency is known now; others are not", () => {
    for (const code of ["vfio-agent-lost", "device-over-budget"] as const)
      expect(nextAfter(failureOf(code))).toBe("retry");
    for (const code of ["device-failed", "switchover-ack-missing", "switchover-deadline", "cancelled"] as const)
      expect(nextAfter(failureOf(code))).toBe("failed");
  });

  it.each([
    ["vfio-agent-lost", "Claiming"],
    ["device-over-budget", "Claiming"],
    ["device-failed", "Aborting"],
  ] as const)("at the source with %s goes on in %s", (code, phase) => {
    const watch = until(new Watch(), "Active");
    const { attempt } = watch.migration;
    watch.happen({
      _tag: "SourceReported",
      report: sourceReport(watch.migration, { phase: "failed", failure: failureOf(code) }),
    });
    // The other side is told first.
    for (let events = 0; events < 20 && watch.migration.phase._tag === "Aborting"; events++)
      watch.happen({
        _tag: "DestinationReported",
        report: destinationReport(watch.migration, { phase: "failed", failure: failureOf(code) }),
      });
    if (phase === "Claiming") expect(watch.migration).toMatchObject({ attempt: attempt + 1, failure: null });
    else expect(watch.migration).toMatchObject({ attempt, failure: { code } });
  });

  it("is told to whoever asks as that: the verdict waits for switchover-ack", () => {
    const watch = until(new Watch(), "Active");
    const prepared = withDevices(watch, true, ["net0"]);
    Object.assign(watch.migration, {
      capabilities: prepared.capabilities,
      sourceReport: prepared.sourceReport,
      destinationReport: prepared.destinationReport,
    });
    const ask = sourceReport(watch.migration, {
      phase: "precopy",
      verdict: verdict(0)!,
      offer: prepared.sourceReport!.offer!,
    });
    const effects = watch.happen({ _tag: "SourceReported", report: ask });
    expect(commandsIn(effects)).toContain("Verdict");
    expect(JSON.stringify(effects)).toMatch(/"verdict":"iterate"/);
  });
});
