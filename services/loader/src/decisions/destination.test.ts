import { DestinationReport, json, type Offer, type OwnershipEntry, type OwnershipRecord } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { admit, begin, makeDestination, mayForget, step } from "./destination.ts";
import type { Destination, DestinationEffect, DestinationEvent, LocalStep } from "./destination-state.ts";
import * as Fence from "./fence.ts";
import { reportOf } from "./loader.ts";

const MIGRATION = "0123456789abcdef";
const INCARNATION = "b".repeat(16);
const EPOCH = 5;
const START = 1000;
const FAILURE = { code: "cancelled", actor: "coordinator", step: "cancel", reason: "by request" } as const;
const GUEST_ENDED = {
  code: "guest-failed",
  actor: "loader",
  side: "destination",
  step: "watch the guest",
  reason: "its process is gone",
} as const;
const offer: Offer = {
  version: 1,
  driver: "builtin",
  machine: "m",
  hypervisor: "h",
  running: true,
  blocks: [{ name: "ram0", "length-bytes": 64 * 4096, "page-size": 4096 }],
};
const make = (): Destination =>
  makeDestination({
    migration: MIGRATION,
    guest: "vm1",
    node: "b",
    source: "a",
    incarnation: INCARNATION,
    epoch: EPOCH,
    term: 1,
    offer,
    now: START,
  });
type Change = Partial<Omit<Extract<OwnershipRecord, { state: "switching" }>, "state">> & {
  readonly state: OwnershipRecord["state"];
};
const entryOf = (change: Change, revision: number): OwnershipEntry => ({
  record: {
    epoch: EPOCH,
    op: "source's",
    migration: MIGRATION,
    node: "a",
    open: true,
    wasRunning: true,
    destination: "b",
    incarnation: INCARNATION,
    manifest: { round: 2, items: 2, deviceBytes: 0 },
    ...change,
  } as OwnershipRecord,
  revision,
});

/** Watches a destination from outside; knows nothing of its phases but what they emit. */
class Watch {
  readonly destination = make();
  now = START;
  /** Operation ids of writes of `destination`, and whether one is known to have won. */
  readonly commits = new Set<string>();
  committed = false;
  readonly unanswered = new Set<LocalStep>();
  failed = false;
  reported = "";
  readonly codec = json(DestinationReport);

  constructor() {
    this.effects(begin);
  }

  happen(event: DestinationEvent): void {
    const answers: Partial<Record<DestinationEvent["_tag"], LocalStep>> = {
      Prepared: "prepare",
      DeviceStateLoaded: "load-device-state",
      Resumed: "resume",
      Discarded: "discard",
    };
    const local = event._tag === "LocalFailed" ? event.step : answers[event._tag];
    if (local !== undefined && local !== "apply") this.unanswered.delete(local);
    if (event._tag === "RecordWritten" && typeof event.outcome === "object" && this.commits.has(event.op))
      this.committed = true;
    if (event._tag === "RecordRead" && event.entry !== null && event.entry !== "Unknown")
      if (this.commits.has(event.entry.record.op)) this.committed = true;
    const before = this.destination.phase._tag;
    this.effects(step(this.destination, event, this.now));
    if (before === "Running" || before === "Lost" || before === "Failed")
      expect(this.destination.phase._tag).toBe(before);
    this.check();
  }

  effects(effects: ReadonlyArray<DestinationEffect>): void {
    for (const effect of effects) {
      if (effect._tag === "WakeAt" && effect.at < this.now) throw new Error("a wake in the past");
      if (effect._tag === "WriteRecord") {
        expect(effect.record).toMatchObject({ state: "destination", epoch: EPOCH, migration: MIGRATION, node: "b" });
        expect(effect.record).toMatchObject({ incarnation: INCARNATION });
        if (effect.record.open) this.commits.add(effect.record.op);
        // Closed only when it runs here.
        else if (!this.committed) throw new Error("the record is closed before it was won");
        expect(effect.revision).toBeGreaterThan(0);
      }
      if (effect._tag !== "Local") continue;
      if (effect.step === "resume" && !this.committed)
        throw new Error("the guest runs here, and the commit was not won");
      if (effect.step === "discard" && this.committed) throw new Error("a guest that was won is discarded");
      if (this.unanswered.size > 0)
        throw new Error(`${[...this.unanswered]} then ${effect.step}, and the first is unanswered`);
      this.unanswered.add(effect.step);
    }
  }

  check(): void {
    const { phase } = this.destination;
    const report = reportOf(this.destination);
    // R10: `failed` is never said of a guest that runs here, and never taken back.
    if (report.phase === "failed") this.failed = true;
    if (this.failed && report.phase !== "failed") throw new Error(`failed, then ${report.phase}`);
    if (report.phase === "running" && !this.committed) throw new Error("it is said to run, and nobody won it");
    if (phase._tag === "Failed" && this.committed) throw new Error("failed after it was won");
    if (this.reported === phase._tag) return;
    this.reported = phase._tag;
    expect(this.codec.decode(this.codec.encode(report))).toEqual(report);
    if (report.phase === "failed") expect(report.failure).toBeDefined();
  }

  /** What comes when all goes well. */
  helpful(): DestinationEvent[] {
    const { phase, promise } = this.destination;
    const events: DestinationEvent[] = [];
    for (const local of this.unanswered) {
      if (local === "prepare") events.push({ _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(1000)) });
      if (local === "load-device-state") events.push({ _tag: "DeviceStateLoaded" });
      if (local === "resume") events.push({ _tag: "Resumed" });
      if (local === "discard") events.push({ _tag: "Discarded" });
    }
    if (phase._tag === "Ready") {
      events.push({ _tag: "SwitchingTold", epoch: EPOCH }, { _tag: "PacketsApplied" });
      if (promise === null)
        events.push({ _tag: "RecordRead", op: "promise", entry: entryOf({ state: "switching" }, 7) });
    }
    if ("settlement" in phase) {
      const { record, revision } = phase.settlement;
      events.push({ _tag: "RecordWritten", op: record.op, outcome: { revision: revision + 1 } });
    }
    return events;
  }

  harmful(): DestinationEvent[] {
    const { phase } = this.destination;
    const events: DestinationEvent[] = [...this.unanswered].map((local) => ({
      _tag: "LocalFailed",
      step: local,
      failure: FAILURE,
    }));
    if ("settlement" in phase) {
      const { record, revision } = phase.settlement;
      const { op } = record;
      const read = (entry: OwnershipEntry | null | "Unknown"): DestinationEvent => ({ _tag: "RecordRead", op, entry });
      events.push(
        { _tag: "RecordWritten", op, outcome: "Unknown" },
        { _tag: "RecordWritten", op, outcome: "Lost" },
        read({ record, revision: revision + 1 }),
        read("Unknown"),
        read(null),
        read(entryOf({ state: "switching" }, revision)),
        read(entryOf({ state: "source" }, revision + 1)),
        read(entryOf({ state: "source", epoch: (EPOCH + 1) as never }, revision + 2)),
      );
    }
    if (phase._tag === "Ready") events.push({ _tag: "LocalFailed", step: "apply", failure: FAILURE });
    events.push({ _tag: "GuestEnded", failure: GUEST_ENDED });
    return events;
  }

  anyTime(): DestinationEvent[] {
    const promise = (entry: OwnershipEntry | null | "Unknown"): DestinationEvent => ({
      _tag: "RecordRead",
      op: "promise",
      entry,
    });
    const steps = ["prepare", "load-device-state", "resume", "discard", "apply"] as const;
    return [
      { _tag: "Tick" },
      { _tag: "Tick" },
      { _tag: "Heard" },
      { _tag: "Abandon", failure: FAILURE },
      { _tag: "Concluded", failure: null },
      { _tag: "Concluded", failure: FAILURE },
      { _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(1000)) },
      { _tag: "DeviceStateLoaded" },
      { _tag: "Resumed" },
      { _tag: "Discarded" },
      { _tag: "PacketsApplied" },
      { _tag: "SwitchingTold", epoch: EPOCH },
      { _tag: "SwitchingTold", epoch: EPOCH + 1 },
      promise(null),
      promise("Unknown"),
      promise(entryOf({ state: "source" }, 3)),
      promise(entryOf({ state: "switching", epoch: (EPOCH - 1) as never }, 3)),
      promise(entryOf({ state: "switching", incarnation: "c".repeat(16) as never }, 3)),
      promise(entryOf({ state: "switching", destination: "c" }, 3)),
      promise(entryOf({ state: "switching", migration: "f".repeat(16) as never }, 3)),
      { _tag: "RecordWritten", op: "nobody's", outcome: { revision: 8 } },
      { _tag: "RecordWritten", op: "nobody's", outcome: "Lost" },
      { _tag: "RecordRead", op: "nobody's", entry: entryOf({ state: "destination" }, 99) },
      ...steps.map((local): DestinationEvent => ({ _tag: "LocalFailed", step: local, failure: FAILURE })),
    ];
  }
}

/** Of ten events how many are helpful; which come next, and how many ms later. */
const fate = fc.record({
  helpful: fc.integer({ min: 5, max: 10 }),
  events: fc.array(
    fc.tuple(fc.nat(9), fc.nat(10_000), fc.oneof(fc.nat(5), fc.nat(5), fc.constantFrom(0, 200, 500, 61_000))),
    { minLength: 10, maxLength: 50, size: "max" },
  ),
});

/** Packets of the promised round arrive in between. */
const items = (watch: Watch, choice: number): void => {
  const packet = {
    migration: MIGRATION,
    epoch: EPOCH,
    round: 1 + (choice % 2),
    item: choice % 3,
    channel: 0,
    channelEpoch: 1,
  };
  if (admit(watch.destination, packet) === "apply") Fence.applied(watch.destination.fence, packet);
};

describe("a destination, whatever comes in whatever order", () => {
  it("never throws, lets the guest run only after its commit was won, and never takes back how it ended", () => {
    const phases = new Set<string>();
    fc.assert(
      fc.property(fate, ({ helpful, events }) => {
        const watch = new Watch();
        for (const [kind, choice, ms] of events) {
          watch.now += ms;
          if (choice % 4 === 0) items(watch, choice >> 2);
          const wanted = kind < helpful ? watch.helpful() : kind % 2 === 0 ? watch.harmful() : watch.anyTime();
          const candidates = wanted.length > 0 ? wanted : watch.anyTime();
          watch.happen(candidates[choice % candidates.length]!);
          phases.add(watch.destination.phase._tag);
        }
      }),
      { numRuns: 1500 },
    );
    // A property that never saw a phase said nothing about it.
    expect([...phases].sort()).toEqual(
      [
        ...["Closing", "Committing", "Discarding", "Failed", "Loading", "Lost", "Preparing", "Ready", "Running"],
        "Starting",
      ].sort(),
    );
  });
});

const apply = (watch: Watch, round: number, item: number): void => {
  const packet = { migration: MIGRATION, epoch: EPOCH, round, item, channel: 0, channelEpoch: 1 };
  expect(admit(watch.destination, packet)).toBe("apply");
  Fence.applied(watch.destination.fence, packet);
  watch.happen({ _tag: "PacketsApplied" });
};
const until = (watch: Watch, phase: Destination["phase"]["_tag"]): Watch => {
  if (phase === "Preparing") return watch;
  watch.happen({ _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(1000)) });
  if (phase === "Ready") return watch;
  watch.happen({ _tag: "RecordRead", op: "promise", entry: entryOf({ state: "switching" }, 7) });
  apply(watch, 2, 0);
  apply(watch, 2, 1);
  for (let events = 0; watch.destination.phase._tag !== phase; events++) {
    if (events > 20) throw new Error(`it stays in ${watch.destination.phase._tag}`);
    watch.happen(watch.helpful()[0]!);
  }
  return watch;
};

describe("a destination", () => {
  it("loads the device state only when every promised item of the promised round is applied", () => {
    const watch = until(new Watch(), "Ready");
    watch.happen({ _tag: "RecordRead", op: "promise", entry: entryOf({ state: "switching" }, 7) });
    apply(watch, 1, 0);
    apply(watch, 1, 1);
    expect(watch.destination.phase._tag).toBe("Ready");
    apply(watch, 2, 0);
    expect(watch.destination.phase._tag).toBe("Ready");
    apply(watch, 2, 1);
    expect(watch.destination.phase._tag).toBe("Loading");
  });

  it("believes only a record that names this migration, epoch, node and life of its process", () => {
    const changes: ReadonlyArray<Partial<Change>> = [
      { migration: "f".repeat(16) as never },
      { epoch: (EPOCH + 1) as never },
      { destination: "c" },
      { incarnation: "c".repeat(16) as never },
      { state: "source" },
    ];
    for (const change of changes) {
      const watch = until(new Watch(), "Ready");
      watch.happen({ _tag: "RecordRead", op: "promise", entry: entryOf({ state: "switching", ...change }, 7) });
      expect(watch.destination.promise).toBeNull();
    }
  });

  it("names the revision it was promised at when it commits, so that a taking back in between wins", () => {
    const { phase } = until(new Watch(), "Committing").destination;
    if (phase._tag !== "Committing") throw new Error(phase._tag);
    expect(phase.settlement).toMatchObject({ revision: 7, record: { state: "destination", open: true } });
  });

  it("that lost its commit discards what it has, and says who was faster", () => {
    const watch = until(new Watch(), "Committing");
    const [op] = watch.commits;
    watch.happen({ _tag: "RecordWritten", op: op!, outcome: "Lost" });
    watch.happen({ _tag: "RecordRead", op: op!, entry: entryOf({ state: "source" }, 8) });
    watch.happen({ _tag: "Discarded" });
    expect(reportOf(watch.destination)).toMatchObject({ phase: "failed", failure: { code: "fenced" } });
  });

  it("that waits for its commit is not abandoned by a word: the record decides", () => {
    const watch = until(new Watch(), "Committing");
    watch.happen({ _tag: "Abandon", failure: FAILURE });
    expect(watch.destination).toMatchObject({ phase: { _tag: "Committing" }, failure: null });
  });

  it.each(["Preparing", "Loading"] as const)("that is abandoned in %s lets the guest's work end first", (phase) => {
    const watch = until(new Watch(), phase);
    watch.happen({ _tag: "Abandon", failure: FAILURE });
    expect(watch.unanswered.has("discard")).toBe(false);
    watch.happen(watch.helpful()[0]!);
    expect(watch.unanswered.has("discard")).toBe(true);
  });

  it.each(["Preparing", "Loading"] as const)(
    "in %s ends nothing that is under way because something else has failed",
    (phase) => {
      const watch = until(new Watch(), phase);
      watch.happen({ _tag: "LocalFailed", step: "apply", failure: FAILURE });
      expect(watch.destination.phase._tag).toBe(phase);
      watch.happen(watch.helpful()[0]!);
      expect(watch.unanswered.has("discard")).toBe(true);
    },
  );

  it("whose guest ends before it has everything discards what is left of it, with that reason", () => {
    const watch = until(new Watch(), "Ready");
    watch.happen({ _tag: "GuestEnded", failure: GUEST_ENDED });
    expect(watch.unanswered.has("discard")).toBe(true);
    watch.happen({ _tag: "Discarded" });
    expect(reportOf(watch.destination)).toMatchObject({ phase: "failed", failure: GUEST_ENDED });
  });

  it("whose guest has ended never commits, though its device state was loaded", () => {
    const watch = until(new Watch(), "Loading");
    watch.happen({ _tag: "GuestEnded", failure: GUEST_ENDED });
    watch.happen({ _tag: "DeviceStateLoaded" });
    expect(watch.commits.size).toBe(0);
    expect(watch.unanswered.has("discard")).toBe(true);
  });

  it.each(["Committing", "Starting"] as const)(
    "whose guest ends in %s has lost it: it closes the record, says so, and asks it no more",
    (phase) => {
      const watch = until(new Watch(), phase);
      watch.unanswered.delete("resume");
      watch.happen({ _tag: "GuestEnded", failure: GUEST_ENDED });
      while (watch.destination.phase._tag !== "Lost") watch.happen(watch.helpful()[0]!);
      expect(watch.unanswered.size).toBe(0);
      expect(reportOf(watch.destination)).toMatchObject({ phase: "failed", failure: GUEST_ENDED });
      watch.now += 10_000;
      const again = step(watch.destination, { _tag: "Tick" }, watch.now);
      expect(again.filter(({ _tag }) => _tag === "Local")).toEqual([]);
    },
  );

  it("whose guest ends once it has run has done its part", () => {
    for (const phase of ["Closing", "Running"] as const) {
      const watch = until(new Watch(), phase);
      watch.happen({ _tag: "GuestEnded", failure: GUEST_ENDED });
      expect(reportOf(watch.destination)).toMatchObject({ phase: "running" });
    }
  });

  it("of a migration that ended without its guest waits no longer", () => {
    const watch = until(new Watch(), "Ready");
    watch.happen({ _tag: "Concluded", failure: FAILURE });
    watch.happen({ _tag: "Discarded" });
    expect(reportOf(watch.destination)).toMatchObject({ phase: "failed", failure: FAILURE });
    const running = until(new Watch(), "Running");
    running.happen({ _tag: "Concluded", failure: FAILURE });
    expect(reportOf(running.destination).phase).toBe("running");
  });

  it("leaves alone what it could not prepare: it may be somebody's running guest", () => {
    const watch = new Watch();
    watch.happen({ _tag: "LocalFailed", step: "prepare", failure: FAILURE });
    expect(watch.destination.phase._tag).toBe("Failed");
    expect(watch.unanswered.size).toBe(0);
  });

  it("asks a guest that does not start again, half a second after each refusal and not before", () => {
    const watch = until(new Watch(), "Starting");
    const resumes = (): number =>
      step(watch.destination, { _tag: "Tick" }, watch.now).filter((e) => e._tag === "Local" && e.step === "resume")
        .length;
    for (; watch.now < 30_000; watch.now += 300) expect(resumes()).toBe(0);
    watch.happen({ _tag: "LocalFailed", step: "resume", failure: FAILURE });
    watch.now += 499;
    expect(resumes()).toBe(0);
    watch.now += 1;
    expect(resumes()).toBe(1);
    expect(resumes()).toBe(0);
  });

  it("that arrives paused stays paused, and is handed over all the same", () => {
    const watch = until(new Watch(), "Ready");
    watch.happen({ _tag: "RecordRead", op: "promise", entry: entryOf({ state: "switching", wasRunning: false }, 7) });
    apply(watch, 2, 0);
    apply(watch, 2, 1);
    while (watch.destination.phase._tag !== "Running") watch.happen(watch.helpful()[0]!);
    expect(watch.unanswered.has("resume")).toBe(false);
  });

  it("frees its memory when nobody was heard for three minutes, and not a ms sooner", () => {
    const watch = until(new Watch(), "Ready");
    watch.now += 179_999;
    watch.happen({ _tag: "Tick" });
    expect(watch.destination.phase._tag).toBe("Ready");
    watch.now += 1;
    watch.happen({ _tag: "Tick" });
    expect(watch.destination.phase._tag).toBe("Discarding");
    expect(watch.destination.failure?.code).toBe("source-lost");
  });

  it("is forgotten three minutes after the last word, once it is over", () => {
    const watch = until(new Watch(), "Running");
    expect(mayForget(watch.destination, watch.now + 179_999)).toBe(false);
    expect(mayForget(watch.destination, watch.now + 180_000)).toBe(true);
    expect(mayForget(until(new Watch(), "Ready").destination, 1e9)).toBe(false);
  });

  it("lets packets in only while it is Ready", () => {
    const packet = { migration: MIGRATION, epoch: EPOCH, round: 9, item: 0, channel: 0, channelEpoch: 1 };
    for (const phase of ["Preparing", "Loading", "Committing", "Starting", "Closing", "Running"] as const)
      expect(admit(until(new Watch(), phase).destination, packet), phase).toBe("not receiving");
    expect(admit(until(new Watch(), "Ready").destination, packet)).toBe("apply");
  });
});
