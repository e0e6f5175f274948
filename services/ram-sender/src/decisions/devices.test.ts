import type { SaveReport, VfioDeviceInfo } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import * as Devices from "./devices.ts";
import { AGENT, DEVICE_FAILURE, DevicesWatch, STREAMS } from "./devices-watch.conformance.ts";
import { step } from "./source.ts";
import type { Source, SourceEffect, SourceEvent } from "./source-state.ts";
import { FAILURE, GUEST_ENDED } from "./source-watch.conformance.ts";

const fate = fc.record({
  helpful: fc.integer({ min: 5, max: 10 }),
  events: fc.array(
    fc.tuple(fc.nat(9), fc.nat(10_000), fc.oneof(fc.nat(5), fc.nat(5), fc.constantFrom(0, 50, 500, 20_000))),
    { minLength: 20, maxLength: 100, size: "max" },
  ),
});

describe("a source whose guest has devices, whatever comes in whatever order", () => {
  it("reads no page before they log, promises no stream that it does not know, and lets the guest go on after them", () => {
    const endings = new Set<string>();
    const phases = new Set<string>();
    fc.assert(
      fc.property(fate, fc.boolean(), ({ helpful, events }, pause) => {
        const watch = new DevicesWatch({ "pause-before-switchover": pause });
        for (const [kind, choice, ms] of events) {
          watch.now += ms;
          const wanted = kind < helpful ? watch.helpful() : kind % 2 === 0 ? watch.harmful() : watch.anyTime();
          const candidates = wanted.length > 0 ? wanted : watch.anyTime();
          watch.happen(candidates[choice % candidates.length]!);
          phases.add(watch.source.phase._tag);
        }
        endings.add(watch.outcome ?? "none");
      }),
      { numRuns: 1000 },
    );
    for (const phase of ["StoppingDevices", "SavingDevices", "ReleasingDevices", "AwaitingCommit", "Discarding"])
      expect(phases).toContain(phase);
    expect(endings).toContain("completed");
    expect(endings).toContain("failed");
  });
});

/** Lets helpful events come until `phase` is reached. */
const until = (phase: Source["phase"]["_tag"], watch = new DevicesWatch()): DevicesWatch => {
  for (let events = 0; watch.source.phase._tag !== phase; events++) {
    if (events > 100) throw new Error(`it stays in ${watch.source.phase._tag}`);
    const all = watch.helpful().filter((event) => event._tag !== "Verdict" || event.verdict === "switch-over");
    const first = all.filter((event) => event._tag !== "DevicesReported");
    const reports = all.filter((event) => event._tag === "DevicesReported");
    // What is new first; the same report again and again leads nowhere.
    watch.happen(first.at(-1) ?? reports[0]!);
    for (const report of reports) if (watch.source.phase._tag !== phase) watch.happen(report);
  }
  return watch;
};
const effectsOf = (watch: DevicesWatch, event: SourceEvent): ReadonlyArray<SourceEffect> =>
  step(watch.source, event, watch.now);
const told = (effects: ReadonlyArray<SourceEffect>): string[] =>
  effects.flatMap((effect) => (effect._tag === "TellAgent" ? [effect.stage] : []));
const stepsIn = (effects: ReadonlyArray<SourceEffect>): string[] =>
  effects.flatMap((effect) => (effect._tag === "Local" ? [effect.step] : []));

describe("a source whose guest has devices", () => {
  it("begins with them when it begins, and with the first round once they are in precopy and the tracker is open", () => {
    const watch = until("Claimed");
    const start = watch.helpful().find(({ _tag }) => _tag === "Start")!;
    expect(told(effectsOf(watch, start))).toEqual(["precopy"]);
    expect(stepsIn(effectsOf(watch, watch.report("opening")))).toEqual([]);
    expect(stepsIn(effectsOf(watch, { _tag: "TrackerOpened", kind: "content" }))).toEqual([]);
    expect(stepsIn(effectsOf(watch, watch.report("precopy")))).toEqual(["sync"]);
  });

  it("stops them once the guest stands still, and saves its own state once they have stopped", () => {
    const watch = until("Stopping");
    expect(told(effectsOf(watch, { _tag: "Paused" }))).toEqual(["stopped"]);
    expect(stepsIn(effectsOf(watch, watch.report("stopping")))).toEqual([]);
    expect(stepsIn(effectsOf(watch, watch.report("stopped")))).toEqual(["save-device-state"]);
  });

  it("writes `switching` only when the length of every stream is known", () => {
    const watch = until("SavingDevices");
    const writes = (event: SourceEvent) => effectsOf(watch, event).filter(({ _tag }) => _tag === "WriteRecord");
    expect(writes(watch.report("stopped"))).toEqual([]);
    expect(writes(watch.report("stopped", { streams: STREAMS }))).toMatchObject([
      { record: { state: "switching", manifest: { streams: STREAMS } } },
    ]);
  });

  it.each(["OpeningTracker", "Precopy", "StoppingDevices", "SavingDevices", "PreSwitchover"] as const)(
    "leads them back before anything else when they fail in %s, and says why",
    (phase) => {
      const watch = until(phase, new DevicesWatch({ "pause-before-switchover": phase === "PreSwitchover" }));
      const effects = effectsOf(watch, watch.report("stopping", { failure: DEVICE_FAILURE }));
      expect(told(effects)).toEqual(["resumed"]);
      expect(stepsIn(effects)).toEqual([]);
      expect(watch.source.failure).toEqual(DEVICE_FAILURE);
      const after = effectsOf(watch, watch.report("resumed"));
      const wasStopped = phase !== "OpeningTracker" && phase !== "Precopy";
      expect(stepsIn(after)).toEqual(wasStopped ? ["resume"] : []);
    },
  );

  it.each(["Stopping", "SavingDeviceState", "FinalSync"] as const)(
    "aborted in %s waits for its own step, and leads them back then",
    (phase) => {
      const watch = until(phase);
      expect(told(effectsOf(watch, { _tag: "Abort", failure: FAILURE }))).toEqual([]);
      const answers = { Stopping: "pause", SavingDeviceState: "save-device-state", FinalSync: "sync" } as const;
      const effects = effectsOf(watch, { _tag: "LocalFailed", step: answers[phase], failure: FAILURE });
      expect(told(effects)).toEqual(["resumed"]);
      expect(stepsIn(effects)).toEqual([]);
    },
  );

  it("takes the record back before it leads them back, once it may have been promised", () => {
    const watch = until("AwaitingCommit");
    expect(told(effectsOf(watch, { _tag: "Abort", failure: FAILURE }))).toEqual([]);
    expect(watch.source.phase._tag).toBe("TakingBack");
    expect(told(effectsOf(watch, watch.helpful()[0]!))).toEqual(["resumed"]);
  });

  it("whose agent was restarted in the middle loses it, and lets the one that is there lead the devices back", () => {
    const watch = until("SavingDevices");
    const another = { incarnation: "e".repeat(16) as never };
    expect(told(effectsOf(watch, watch.report("unknown", another)))).toEqual(["resumed"]);
    expect(watch.source.failure).toMatchObject({ code: "vfio-agent-lost", side: "source" });
    expect(stepsIn(effectsOf(watch, watch.report("resumed", another)))).toEqual(["resume"]);
  });

  it.each([
    ["StoppingDevices", 3000],
    ["SavingDevices", 3000],
    ["Precopy", 45_000],
  ] as const)("whose agent is silent in %s gives it up after %i ms", (phase, ms) => {
    const watch = until(phase);
    const { heardAt } = watch.source.devices!;
    watch.now = heardAt + ms - 1;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.failure).toBeNull();
    watch.now++;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.failure).toMatchObject({ code: "vfio-agent-lost" });
    expect(watch.source.failure?.reason).toMatch(/silent/);
  });

  it.each(["StoppingDevices", "SavingDevices"] as const)(
    "whose devices stay in %s, with an agent that goes on reporting, lets the guest go on at the switchover deadline",
    (phase) => {
      const watch = until(phase);
      const deadline = watch.source.parameters["switchover-deadline"];
      for (let passed = 0; passed < deadline; passed += 500) {
        expect(watch.source.failure).toBeNull();
        watch.now += 500;
        watch.happen(watch.report("stopping"));
        watch.happen({ _tag: "Tick" });
      }
      expect(watch.source.failure).toMatchObject({ code: "switchover-deadline" });
      expect(watch.source.phase._tag).toBe("ReleasingDevices");
    },
  );

  it("that do not go back keep the guest waiting for ten seconds, and no longer", () => {
    const watch = until("SavingDevices");
    watch.happen({ _tag: "Abort", failure: FAILURE });
    for (let passed = 100; passed < 10_000; passed += 100) {
      watch.now += 100;
      const effects = effectsOf(watch, { _tag: "Tick" });
      expect(stepsIn(effects)).toEqual([]);
      // It is said again and again.
      expect(told(effects)).toEqual(["resumed"]);
    }
    watch.now += 100;
    expect(stepsIn(effectsOf(watch, { _tag: "Tick" }))).toEqual(["resume"]);
  });

  it("discards them once the destination has the guest, and not before", () => {
    const watch = until("AwaitingCommit");
    const confirmed = watch.helpful().find((event) => event._tag === "RecordRead" && event.op === "confirm")!;
    expect(told(effectsOf(watch, confirmed))).toEqual(["discarded"]);
  });

  it("that has ended by itself leads back what is left of them, and resumes nothing", () => {
    const watch = until("StoppingDevices");
    expect(told(effectsOf(watch, { _tag: "GuestEnded", failure: GUEST_ENDED }))).toEqual(["resumed"]);
    const effects = effectsOf(watch, watch.report("resumed"));
    expect(stepsIn(effects)).toEqual([]);
    expect(effects).toContainEqual(expect.objectContaining({ _tag: "WriteRecord" }));
  });

  it("counts them when it says what is left to do", () => {
    const info = (change: Partial<VfioDeviceInfo>) => ({
      queued: 0,
      "stop-copy-bytes": 0,
      "switchover-ms": 0,
      ...change,
    });
    const report = {
      stage: "precopy",
      incarnation: AGENT,
      bandwidth: 7,
      devices: [
        info({ queued: 10, "stop-copy-bytes": 1000, "initial-bytes": 5, "dirty-bytes": 5, "switchover-ms": 40 }),
        info({ queued: 1, "initial-bytes": 20, "dirty-bytes": 30, "switchover-ms": 90 }),
      ],
    } as unknown as SaveReport;
    const devices = { ...Devices.make(), report };
    expect(Devices.passOf(devices)).toEqual({ devices: { remaining: 1061, bandwidth: 7, "switchover-ms": 90 } });
    expect(Devices.passOf(null)).toEqual({});
  });
});
