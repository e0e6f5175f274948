import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { admit } from "./admission.ts";
import { mayForget, step } from "./destination.ts";
import type { Destination } from "./destination-state.ts";
import {
  type Change,
  EPOCH,
  entryOf,
  FAILURE,
  FETCHING,
  GUEST_ENDED,
  MIGRATION,
  Watch,
} from "./destination-watch.conformance.ts";
import * as Fence from "./fence.ts";
import { reportOf } from "./loader.ts";

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
    kind: watch.isPostcopy ? ("slice" as const) : ("pages" as const),
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
      fc.property(fate, fc.boolean(), ({ helpful, events }, isPostcopy) => {
        const watch = new Watch(isPostcopy);
        for (const [kind, choice, ms] of events) {
          watch.now += ms;
          if (choice % 4 === 0) items(watch, choice >> 2);
          const wanted = kind < helpful ? watch.helpful() : kind % 2 === 0 ? watch.harmful() : watch.anyTime();
          const candidates = wanted.length > 0 ? wanted : watch.anyTime();
          watch.happen(candidates[choice % candidates.length]!);
          phases.add(watch.destination.phase._tag);
        }
      }),
      // So many that also the rarest phase, a guest that is gone between commit and start, comes some hundred times.
      { numRuns: 6000 },
    );
    // A property that never saw a phase said nothing about it.
    expect([...phases].sort()).toEqual(
      [
        ...["Closing", "Committing", "Discarding", "Failed", "Loading", "Lost", "Preparing", "Ready", "Running"],
        ...["Expecting", "Paging", "Starting"],
      ].sort(),
    );
  });
});

const apply = (watch: Watch, round: number, item: number): void => {
  const packet = {
    kind: "pages" as const,
    migration: MIGRATION,
    epoch: EPOCH,
    round,
    item,
    channel: 0,
    channelEpoch: 1,
  };
  expect(admit(watch.destination, packet)).toBe("apply");
  Fence.applied(watch.destination.fence, packet);
  watch.happen({ _tag: "PacketsApplied" });
};
const until = (watch: Watch, phase: Destination["phase"]["_tag"]): Watch => {
  if (phase === "Preparing") return watch;
  watch.happen({ _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(1000)), loaded: false });
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

/** A guest that runs, and waits for pages. */
const paging = (): Watch => {
  const watch = new Watch(true);
  watch.happen({ _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(1000)), loaded: false });
  watch.happen({ _tag: "RecordRead", op: "promise", entry: watch.promiseOf() });
  const slice = { kind: "slice" as const, migration: MIGRATION, epoch: EPOCH, round: 2, channel: 0, channelEpoch: 1 };
  for (const item of [0, 1]) Fence.applied(watch.destination.fence, { ...slice, item });
  watch.happen({ _tag: "MissingKnown", digest: 5 });
  while (watch.destination.phase._tag !== "Paging") watch.happen(watch.helpful()[0]!);
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

  it.each([
    ["was given up", { state: "destination", postcopy: true, lost: "by an operator" }, "by an operator"],
    ["has been taken over", { state: "source", node: "c", epoch: (EPOCH + 1) as never }, "fenced off by epoch 6"],
  ] as const)("whose guest waits for pages and %s ends it, and never lets it go on", (_, change, reason) => {
    const watch = paging();
    const entry = entryOf(change as Change, 20);
    const effects = step(watch.destination, { _tag: "RecordRead", op: "promise", entry }, watch.now);
    expect(effects).toContainEqual({ _tag: "Local", step: "give-up-pages" });
    watch.happen({ _tag: "GuestEnded", failure: GUEST_ENDED });
    expect(reportOf(watch.destination)).toMatchObject({
      phase: "failed",
      failure: { reason: expect.stringContaining(reason) },
    });
    expect(watch.unanswered.has("resume")).toBe(false);
  });

  it("whose guest was given up when it had just got its last page does not let it run either", () => {
    const watch = paging();
    watch.happen({ _tag: "Fetched", info: FETCHING, isAllThere: true });
    const { phase } = watch.destination;
    if (phase._tag !== "Closing") throw new Error(phase._tag);
    const { op } = phase.settlement.record;
    watch.happen({ _tag: "RecordWritten", op, outcome: "Lost" });
    const change = { state: "destination", postcopy: true, lost: "by an operator", givenUp: true } as unknown as Change;
    const read = { _tag: "RecordRead", op, entry: entryOf(change, 20) } as const;
    expect(step(watch.destination, read, watch.now)).toContainEqual({ _tag: "Local", step: "give-up-pages" });
    watch.happen({ _tag: "Fetched", info: FETCHING, isAllThere: true });
    const closing = step(watch.destination, { _tag: "GuestEnded", failure: GUEST_ENDED }, watch.now);
    const record = expect.objectContaining({ open: false, lost: "by an operator", givenUp: true });
    expect(closing).toContainEqual(expect.objectContaining({ _tag: "WriteRecord", revision: 20, record }));
    expect(reportOf(watch.destination)).toMatchObject({ phase: "failed", failure: { code: "postcopy-given-up" } });
  });

  it("goes by the newest parameters, and shows which it has", () => {
    const watch = until(new Watch(), "Ready");
    expect(reportOf(watch.destination)["parameters-revision"]).toBe(0);
    const tuned = (bandwidth: number, revision: number) => {
      const parameters = { ...watch.destination.parameters, "max-postcopy-bandwidth": bandwidth };
      return step(watch.destination, { _tag: "Tune", parameters, revision }, watch.now);
    };
    expect(tuned(7, 2)).toContainEqual({ _tag: "TuneFetching" });
    expect(tuned(5, 1)).not.toContainEqual({ _tag: "TuneFetching" });
    expect(watch.destination.parameters["max-postcopy-bandwidth"]).toBe(7);
    expect(reportOf(watch.destination)["parameters-revision"]).toBe(2);
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
    const packet = {
      kind: "pages" as const,
      migration: MIGRATION,
      epoch: EPOCH,
      round: 9,
      item: 0,
      channel: 0,
      channelEpoch: 1,
    };
    for (const phase of ["Preparing", "Loading", "Committing", "Starting", "Closing", "Running"] as const)
      expect(admit(until(new Watch(), phase).destination, packet), phase).toBe("not receiving");
    expect(admit(until(new Watch(), "Ready").destination, packet)).toBe("apply");
  });
});
