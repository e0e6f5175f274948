import { FENCE_OP_PREFIX, NO_XBZRLE } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { reportOf } from "./report.ts";
import { step } from "./source.ts";
import type { LocalStep, Source, SourceEffect, SourceEvent } from "./source-state.ts";
import {
  DESTINATION,
  FAILURE,
  GUEST_ENDED,
  until as letUntil,
  make,
  offer,
  recordOf,
  Watch,
} from "./source-watch.conformance.ts";

/** Of ten events how many are helpful; which come next, and how many ms later. */
const fate = fc.record({
  helpful: fc.integer({ min: 5, max: 10 }),
  events: fc.array(
    fc.tuple(fc.nat(9), fc.nat(10_000), fc.oneof(fc.nat(5), fc.nat(5), fc.constantFrom(0, 50, 500, 20_000))),
    { minLength: 20, maxLength: 80, size: "max" },
  ),
});
const next = (watch: Watch, helpful: number, [kind, choice, ms]: readonly [number, number, number]): void => {
  watch.now += ms;
  const wanted = kind < helpful ? watch.helpful() : kind % 2 === 0 ? watch.harmful() : watch.anyTime();
  const candidates = wanted.length > 0 ? wanted : watch.anyTime();
  watch.happen(candidates[choice % candidates.length]!);
};

describe("a source, whatever comes in whatever order", () => {
  it("never throws, lets the guest go on only when the record cannot be `switching`, and ends once, with its reason", () => {
    const endings = new Map<string, number>();
    const phases = new Set<string>();
    fc.assert(
      fc.property(fate, fc.boolean(), fc.boolean(), ({ helpful, events }, pause, postcopy) => {
        const watch = new Watch(make({ "pause-before-switchover": pause, "postcopy-ram": postcopy }));
        for (const event of events) {
          next(watch, helpful, event);
          phases.add(watch.source.phase._tag);
        }
        endings.set(watch.outcome ?? "none", (endings.get(watch.outcome ?? "none") ?? 0) + 1);
      }),
      { numRuns: 2000 },
    );
    // A property that never saw a phase said nothing about it.
    expect([...phases].sort()).toEqual(
      [
        ...[
          "AwaitingCommit",
          "Claimed",
          "Claiming",
          "Discarding",
          "Ended",
          "FinalSync",
          "OpeningTracker",
          "PreSwitchover",
        ],
        ...[
          "Losing",
          "Precopy",
          "Releasing",
          "Resuming",
          "SavingDeviceState",
          "Serving",
          "Stopping",
          "Switching",
          "TakingBack",
        ],
      ].sort(),
    );
    expect(endings.get("completed")).toBeGreaterThan(0);
    expect(endings.get("failed")).toBeGreaterThan(0);
  });
});

describe("a guest with VFIO devices", () => {
  it("is not moved with postcopy-ram, as with QEMU: what a device writes into missing memory nobody could stop", () => {
    const source = make({ "postcopy-ram": true });
    const device = {
      device: "vfio0",
      provider: "simulated",
      p2p: true,
      "pre-copy": true,
      "dirty-logging": true,
    } as const;
    step(source, { _tag: "Described", offer: { ...offer, devices: [device] }, running: true }, 1000);
    expect(source.phase).toEqual({ _tag: "Ended", outcome: "failed" });
    expect(source.failure).toMatchObject({ code: "capability-conflict", reason: expect.stringContaining("vfio0") });
  });
});

/** Lets helpful events come until `phase` is reached. */
const until = (watch: Watch, phase: Source["phase"]["_tag"]): Watch => letUntil(watch, phase, 0);
const effectsOf = (watch: Watch, event: SourceEvent): ReadonlyArray<SourceEffect> =>
  step(watch.source, event, watch.now);
const stepsIn = (effects: ReadonlyArray<SourceEffect>): LocalStep[] =>
  effects.flatMap((effect) => (effect._tag === "Local" ? [effect.step] : []));

describe("a source", () => {
  it("that is aborted after the guest was handed over is completed, without a reason to fail", () => {
    const watch = until(new Watch(make()), "Discarding");
    watch.happen({ _tag: "Abort", failure: FAILURE });
    watch.happen({ _tag: "Discarded" });
    watch.happen({ _tag: "LocalFailed", step: "discard", failure: FAILURE });
    const report = reportOf(watch.source, watch.now);
    expect(report).toMatchObject({ phase: "completed", downtime: expect.any(Number) });
    expect(report.failure).toBeUndefined();
  });

  it("lets a paused guest go on only once the pause was answered, whatever else fails meanwhile", () => {
    const watch = until(new Watch(make()), "Stopping");
    expect(stepsIn(effectsOf(watch, { _tag: "LocalFailed", step: "sync", failure: FAILURE }))).toEqual([]);
    expect(stepsIn(effectsOf(watch, { _tag: "Paused" }))).toEqual(["resume"]);
  });

  it("that a coordinator took the guest back for while it slept closes that record, once the guest goes on", () => {
    const watch = until(new Watch(make()), "Stopping");
    watch.happen({ _tag: "Abort", failure: FAILURE });
    watch.happen({ _tag: "Paused" });
    const [closing] = effectsOf(watch, { _tag: "Resumed" }).filter(({ _tag }) => _tag === "WriteRecord");
    const mine = closing as Extract<SourceEffect, { _tag: "WriteRecord" }>;
    const epoch = (watch.source.epoch + 1) as typeof mine.record.epoch;
    const fence = { ...mine.record, epoch, op: `${FENCE_OP_PREFIX}1`, open: true };
    const lost: SourceEvent = { _tag: "RecordRead", op: mine.record.op, entry: { record: fence, revision: 50 } };
    watch.happen({ _tag: "RecordWritten", op: mine.record.op, outcome: "Lost" });
    expect(effectsOf(watch, lost)).toContainEqual(
      expect.objectContaining({ record: expect.objectContaining({ epoch, open: false }), revision: 50 }),
    );
  });

  it("asks a guest to go on once, and again only half a second after it has refused", () => {
    const watch = until(new Watch(make()), "Stopping");
    watch.happen({ _tag: "Abort", failure: FAILURE });
    watch.happen({ _tag: "Paused" });
    for (watch.now = 1100; watch.now < 20_000; watch.now += 200)
      expect(stepsIn(effectsOf(watch, { _tag: "Tick" }))).toEqual([]);
    watch.happen({ _tag: "LocalFailed", step: "resume", failure: FAILURE });
    watch.now += 499;
    expect(stepsIn(effectsOf(watch, { _tag: "Tick" }))).toEqual([]);
    watch.now += 1;
    expect(stepsIn(effectsOf(watch, { _tag: "Tick" }))).toEqual(["resume"]);
    expect(stepsIn(effectsOf(watch, { _tag: "Tick" }))).toEqual([]);
  });

  it("whose device state is longer than any destination takes goes on at once, and says why", () => {
    const watch = until(new Watch(make()), "SavingDeviceState");
    expect(stepsIn(effectsOf(watch, { _tag: "DeviceStateSaved", bytes: 256 * 1024 ** 2 + 1, digest: 1 }))).toEqual([
      "resume",
    ]);
    expect(watch.source.failure).toMatchObject({ code: "device-state-failed", step: "save the device state" });
    expect(watch.source.failure?.reason).toMatch(/268435457/);
    const within = until(new Watch(make()), "SavingDeviceState");
    expect(stepsIn(effectsOf(within, { _tag: "DeviceStateSaved", bytes: 256 * 1024 ** 2, digest: 1 }))).toEqual([
      "sync",
    ]);
  });

  it("whose claim lost to another life that has handed the guest over has completed nothing itself", () => {
    const watch = new Watch(make());
    watch.happen({ _tag: "Described", offer, running: true });
    watch.happen({ _tag: "RecordRead", op: "claim", entry: null });
    const { phase } = watch.source;
    if (phase._tag !== "Claiming" || phase.settlement === null) throw new Error(phase._tag);
    const entry = {
      record: recordOf(watch.source, { state: "destination", migration: "f".repeat(16) as never }),
      revision: 9,
    };
    const effects = effectsOf(watch, { _tag: "RecordRead", op: phase.settlement.record.op, entry });
    expect(stepsIn(effects)).toEqual([]);
    expect(reportOf(watch.source, 0)).toMatchObject({ phase: "failed", failure: { code: "fenced" } });
  });

  it("describes its own guest first: a record read before that is not acted on", () => {
    const watch = new Watch(make());
    expect(effectsOf(watch, { _tag: "RecordRead", op: "claim", entry: null }).map(({ _tag }) => _tag)).toEqual([
      "WakeAt",
    ]);
  });

  it("waits to claim while a switchover of its earlier life is being taken back", () => {
    const watch = new Watch(make());
    watch.happen({ _tag: "Described", offer, running: true });
    const entry = { record: recordOf(watch.source, { state: "switching", node: "a" }), revision: 4 };
    const effects = effectsOf(watch, { _tag: "RecordRead", op: "claim", entry });
    expect(effects).toContainEqual({ _tag: "ReadRecord", op: "claim", afterMs: 50 });
  });

  it("refuses a guest whose record names another node", () => {
    const watch = new Watch(make());
    watch.happen({ _tag: "Described", offer, running: true });
    watch.happen({
      _tag: "RecordRead",
      op: "claim",
      entry: { record: recordOf(watch.source, { state: "destination" }), revision: 4 },
    });
    expect(reportOf(watch.source, 0)).toMatchObject({ phase: "failed", failure: { code: "fenced" } });
  });

  it("undoes a switchover that takes longer than its deadline, and not a ms sooner", () => {
    const watch = until(new Watch(make()), "AwaitingCommit");
    const deadline = watch.source.parameters["switchover-deadline"];
    watch.now = watch.source.marks.save + deadline - 1;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.phase._tag).toBe("AwaitingCommit");
    watch.now++;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.phase._tag).toBe("TakingBack");
    expect(watch.source.failure?.code).toBe("switchover-deadline");
  });

  it("aborted while the record is being written takes the guest back as soon as that is settled", () => {
    const watch = until(new Watch(make()), "Switching");
    watch.happen({ _tag: "Abort", failure: FAILURE });
    expect(watch.source.phase._tag).toBe("Switching");
    watch.happen(watch.helpful()[0]!);
    expect(watch.source.phase._tag).toBe("TakingBack");
    until(watch, "Ended");
    expect(reportOf(watch.source, watch.now)).toMatchObject({ phase: "failed", failure: FAILURE });
  });

  it.each(["Claimed", "OpeningTracker", "Precopy", "PreSwitchover"] as const)(
    "whose guest ends in %s closes the record and ends, with that reason",
    (phase) => {
      const watch = until(new Watch(make({ "pause-before-switchover": true })), phase);
      const effects = effectsOf(watch, { _tag: "GuestEnded", failure: GUEST_ENDED });
      expect(stepsIn(effects)).toEqual([]);
      expect(effects).toContainEqual(
        expect.objectContaining({
          _tag: "WriteRecord",
          record: expect.objectContaining({ state: "source", open: false }),
        }),
      );
      watch.happen(watch.helpful()[0]!);
      expect(reportOf(watch.source, watch.now)).toMatchObject({ phase: "failed", failure: GUEST_ENDED });
    },
  );

  it.each([
    ["Stopping", "pause"],
    ["SavingDeviceState", "save-device-state"],
    ["FinalSync", "sync"],
  ] as const)("whose guest ends in %s waits for the answer of that step, and then ends", (phase, local) => {
    const watch = until(new Watch(make()), phase);
    watch.happen({ _tag: "GuestEnded", failure: GUEST_ENDED });
    expect(watch.source.phase._tag).toBe(phase);
    expect(stepsIn(effectsOf(watch, { _tag: "LocalFailed", step: local, failure: FAILURE }))).toEqual([]);
    expect(watch.source.phase._tag).toBe("Releasing");
    expect(watch.source.failure).toEqual(GUEST_ENDED);
  });

  it("whose guest does not go on because it is gone does not ask for ever", () => {
    const watch = until(new Watch(make()), "Stopping");
    watch.happen({ _tag: "Abort", failure: FAILURE });
    watch.happen({ _tag: "Paused" });
    watch.happen({ _tag: "LocalFailed", step: "resume", failure: FAILURE });
    expect(watch.source.phase._tag).toBe("Resuming");
    watch.happen({ _tag: "GuestEnded", failure: GUEST_ENDED });
    expect(watch.source.phase._tag).toBe("Releasing");
    expect(watch.source.failure).toEqual(FAILURE);
  });

  it("whose guest ends once all of it is promised lets the destination have it", () => {
    for (const phase of ["Switching", "AwaitingCommit"] as const) {
      const watch = until(new Watch(make()), phase);
      watch.happen({ _tag: "GuestEnded", failure: GUEST_ENDED });
      expect(watch.source.phase._tag).toBe(phase);
      until(watch, "Ended");
      expect(reportOf(watch.source, watch.now).phase).toBe("completed");
    }
  });

  it("whose guest has ended and whose destination does not take it in time says that the guest has ended", () => {
    const watch = until(new Watch(make()), "AwaitingCommit");
    watch.happen({ _tag: "GuestEnded", failure: GUEST_ENDED });
    watch.now = watch.source.marks.save + watch.source.parameters["switchover-deadline"];
    watch.happen({ _tag: "Tick" });
    expect(watch.source.phase._tag).toBe("TakingBack");
    until(watch, "Ended");
    expect(reportOf(watch.source, watch.now)).toMatchObject({ phase: "failed", failure: GUEST_ENDED });
  });

  describe("whose worker cannot read what it shall send", () => {
    const scanning = (): Watch => {
      const watch = until(new Watch(make()), "Precopy");
      watch.happen({ _tag: "WorkerUp", worker: "w1" });
      return watch;
    };
    const dispatched = (watch: Watch, event: SourceEvent) =>
      effectsOf(watch, event).filter((effect) => effect._tag === "Dispatch");
    const first = (watch: Watch): number => {
      const { round } = watch.source.ledger;
      return dispatched(watch, { _tag: "Found", round, block: 0, runs: [0, 1] })[0]!.item.item;
    };
    const refuse = (watch: Watch, item: number) => {
      const { epoch, ledger } = watch.source;
      const items = Uint32Array.of(item);
      return dispatched(watch, { _tag: "Refused", epoch, round: ledger.round, items, reason: "no such file" });
    };
    const late = (watch: Watch) => {
      watch.now += 3000;
      return dispatched(watch, { _tag: "Tick" });
    };

    it("has another channel send it at once, and then only when it is late", () => {
      const watch = scanning();
      const item = first(watch);
      const { channel } = watch.source.ledger.outstanding.get(item)!;
      const [again, ...more] = refuse(watch, item);
      expect(again?.channel).not.toBe(channel);
      expect(more).toEqual([]);
      for (let doubled = 0; doubled < 10; doubled++) expect(refuse(watch, item)).toEqual([]);
      // What is refused because the guest has ended is to be told as that, which is known a little later.
      expect(watch.source.phase._tag).toBe("Precopy");
      expect(late(watch)).toHaveLength(1);
    });

    it("gives the attempt up once one item was refused eight times, with the worker's reason", () => {
      const watch = scanning();
      const item = first(watch);
      for (let refusals = 1; refusals < 8; refusals++) expect(refuse(watch, item).length || late(watch).length).toBe(1);
      expect(watch.source.phase._tag).toBe("Precopy");
      refuse(watch, item);
      expect(watch.source.phase._tag).toBe("Releasing");
      expect(watch.source.failure).toMatchObject({ code: "memory-unreadable", reason: /8 times.*no such file/ });
    });
  });

  it("whose guest is given up in postcopy lets its copy go, and has failed", () => {
    const watch = new Watch(make({ "postcopy-ram": true }));
    for (let events = 0; watch.source.phase._tag !== "Serving"; events++) {
      expect(events).toBeLessThan(100);
      const wanted = (event: SourceEvent) => event._tag !== "Verdict" || event.verdict === "start-postcopy";
      watch.happen(watch.helpful().filter(wanted).at(-1)!);
    }
    watch.happen({ _tag: "Served" });
    const reason = "given up by an operator";
    const record = recordOf(watch.source, { state: "destination", postcopy: true, lost: reason });
    watch.happen({ _tag: "RecordRead", op: "confirm", entry: { record, revision: watch.source.revision + 2 } });
    expect([...watch.unanswered.keys()]).toEqual(["discard"]);
    expect(reportOf(watch.source, watch.now)).toMatchObject({ phase: "failed", failure: { reason } });
    watch.happen({ _tag: "Discarded" });
    expect(watch.source.phase).toEqual({ _tag: "Ended", outcome: "failed" });
  });

  describe("that is told to start postcopy", () => {
    const WANTED = { "postcopy-ram": true };
    const start = ({ source }: Watch): SourceEvent => ({ _tag: "StartPostcopy", epoch: source.epoch });
    /** In the middle of a round: ten pages are on their way, and the rest has not been sent. */
    const midRound = (): Watch => {
      const watch = until(new Watch(make(WANTED)), "Precopy");
      watch.happen({ _tag: "WorkerUp", worker: "w0" });
      const { round } = watch.source.ledger;
      watch.happen({ _tag: "Found", round, block: 0, runs: [0, 300] });
      watch.happen({ _tag: "Synced", round, dirtyPages: 300, syncMs: 1 });
      watch.happen({ _tag: "Verdict", epoch: watch.source.epoch, round, verdict: "iterate" });
      return watch;
    };
    const stopped = (watch: Watch): Watch => {
      watch.happen({ _tag: "Paused" });
      watch.happen({ _tag: "DeviceStateSaved", bytes: 10, digest: 7 });
      watch.happen({ _tag: "Synced", round: watch.source.ledger.round, dirtyPages: 0, syncMs: 1 });
      return watch;
    };

    it("stops the guest in the middle of a round, and all that the round has not got across is missing", () => {
      const watch = midRound();
      const [first] = [...watch.source.ledger.outstanding.values()];
      const { epoch } = watch.source;
      const { round } = watch.source.ledger;
      const applied = { epoch, round, incarnation: DESTINATION, items: Uint32Array.of(first!.item) };
      watch.happen({ _tag: "Applied", ...applied, normalPages: 1, wireBytes: 100, xbzrle: NO_XBZRLE });
      expect(stepsIn(effectsOf(watch, start(watch)))).toEqual(["pause"]);
      stopped(watch);
      expect(watch.source.manifest?.postcopy?.pages).toBe(300 - first!.bytes / 4096);
    });

    it("lets a sync that is under way end first: what it finds is noted nowhere else", () => {
      const watch = until(new Watch(make(WANTED)), "Precopy");
      const { round } = watch.source.ledger;
      expect(stepsIn(effectsOf(watch, start(watch)))).toEqual([]);
      expect(watch.source.phase).toMatchObject({ _tag: "Precopy", scanning: true });
      watch.happen({ _tag: "Found", round, block: 0, runs: [5, 1] });
      watch.happen({ _tag: "Synced", round, dirtyPages: 1, syncMs: 1 });
      expect([...watch.unanswered.keys()]).toEqual(["pause"]);
      expect(reportOf(watch.source, watch.now).verdict).toBeUndefined();
      stopped(watch);
      expect(watch.source.manifest?.postcopy?.pages).toBe(1);
    });

    it("does not without the capability, nor by a word to another attempt, nor once it has stopped", () => {
      const without = until(new Watch(make()), "Precopy");
      without.happen(start(without));
      expect(without.source.postcopy).toBe(false);
      const other = midRound();
      other.happen({ _tag: "StartPostcopy", epoch: other.source.epoch - 1 });
      expect(other.source.phase._tag).toBe("Precopy");
      const late = until(new Watch(make(WANTED)), "Stopping");
      late.happen(start(late));
      expect(late.source.postcopy).toBe(false);
    });
  });

  it("gives up when no worker was there for a minute", () => {
    const watch = until(new Watch(make()), "Precopy");
    watch.happen({ _tag: "WorkerDown", worker: "w0" });
    watch.now += 59_999;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.phase._tag).toBe("Precopy");
    watch.now++;
    watch.happen({ _tag: "Tick" });
    expect(watch.source.failure?.code).toBe("workers-lost");
  });
});
