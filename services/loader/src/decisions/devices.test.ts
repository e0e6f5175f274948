import type { Failure, LoadReport, Offer, OwnershipEntry, OwnershipRecord } from "@godwit/protocol";
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { admit } from "./admission.ts";
import { begin, step } from "./destination.ts";
import {
  type Destination,
  type DestinationEffect,
  type DestinationEvent,
  makeDestination,
} from "./destination-state.ts";
import * as Fence from "./fence.ts";
import { reportOf } from "./loader.ts";

const MIGRATION = "0123456789abcdef";
const INCARNATION = "b".repeat(16);
const AGENT = "c".repeat(16);
const EPOCH = 5;
const FAILURE: Failure = {
  code: "device-failed",
  actor: "vfio-agent",
  side: "destination",
  step: "write",
  reason: "EIO",
};
const STREAMS = [{ device: "net0", bytes: 10, digest: 1, "config-bytes": 0, "config-digest": 0 }];
const offer = {
  version: 1,
  driver: "builtin",
  machine: "m",
  hypervisor: "h",
  running: true,
  blocks: [{ name: "ram0", "length-bytes": 64 * 4096, "page-size": 4096 }],
  devices: [{ device: "net0", provider: "simulated", p2p: true, "pre-copy": true, "dirty-logging": false }],
} as Offer;

const ANSWERS: Partial<Record<DestinationEvent["_tag"], string>> = {
  Prepared: "prepare",
  DeviceStateLoaded: "load-device-state",
  Resumed: "resume",
  Discarded: "discard",
};

/** A destination whose guest has a device; says what must not be as soon as it is. */
class Watch {
  readonly destination: Destination = makeDestination({
    migration: MIGRATION,
    guest: "vm1",
    node: "b",
    source: "a",
    incarnation: INCARNATION,
    epoch: EPOCH,
    authority: { term: 1, coordinator: null },
    offer,
    now: 1000,
  });
  now = 1000;
  effects: ReadonlyArray<DestinationEffect> = begin;
  told: string | null = null;
  toldAt = 0;
  readonly seen = new Set<string>();
  readonly unanswered = new Set<string>();
  isWon = false;

  happen(event: DestinationEvent, ms = 0): this {
    this.now += ms;
    if (event._tag === "DevicesReported" && event.report.epoch === EPOCH && event.report.stage === this.told)
      this.seen.add(event.report.stage);
    if (event._tag === "RecordWritten" && typeof event.outcome === "object") this.isWon = true;
    const local = event._tag === "LocalFailed" ? event.step : ANSWERS[event._tag];
    if (local !== undefined) this.unanswered.delete(local);
    this.effects = step(this.destination, event, this.now);
    for (const effect of this.effects) this.check(effect);
    // Nothing of the guest's memory is touched before its devices can take their part.
    if (!this.seen.has("ready"))
      expect(admit(this.destination, { migration: MIGRATION, epoch: EPOCH, round: 1, item: 0 } as never)).not.toBe(
        "apply",
      );
    return this;
  }

  private check(effect: DestinationEffect): void {
    if (effect._tag === "TellAgent") {
      if (effect.stage !== this.told) this.toldAt = this.now;
      this.told = effect.stage;
      if (effect.stage === "running" && !this.isWon) throw new Error("devices run, and nobody won the guest");
      if (effect.stage === "discarded" && this.isWon) throw new Error("devices of a guest that was won are discarded");
    }
    if (effect._tag !== "Local") return;
    if (this.unanswered.size > 0) throw new Error(`${[...this.unanswered]} is unanswered, and ${effect.step} begins`);
    this.unanswered.add(effect.step);
    const isOverdue = this.now - this.toldAt >= 10_000;
    if (effect.step === "load-device-state") this.mustHaveSeen("loaded", false);
    if (effect.step === "resume") this.mustHaveSeen("running", isOverdue);
    if (effect.step === "discard" && this.told !== null) this.mustHaveSeen("discarded", isOverdue);
  }

  private mustHaveSeen(stage: string, isOverdue: boolean): void {
    if (!this.seen.has(stage) && !isOverdue) throw new Error(`nobody said that the devices are ${stage}`);
  }

  report(stage: LoadReport["stage"], change: Partial<LoadReport> = {}): DestinationEvent {
    const report = { migration: MIGRATION, epoch: EPOCH, incarnation: AGENT, stage, devices: [], ...change };
    return { _tag: "DevicesReported", report: report as LoadReport };
  }

  tells(): string[] {
    return this.effects.flatMap((effect) => (effect._tag === "TellAgent" ? [effect.stage] : []));
  }

  steps(): string[] {
    return this.effects.flatMap((effect) => (effect._tag === "Local" ? [effect.step] : []));
  }
}
const prepared = (): DestinationEvent => ({
  _tag: "Prepared",
  words: new Uint32Array(Fence.wordsOf(64)),
  loaded: false,
});
const switchingWith = (items: number): DestinationEvent => ({
  _tag: "RecordRead",
  op: "promise",
  entry: {
    record: {
      state: "switching",
      epoch: EPOCH,
      op: "source's",
      migration: MIGRATION,
      node: "a",
      open: true,
      wasRunning: true,
      destination: "b",
      incarnation: INCARNATION,
      manifest: { round: items, items, deviceBytes: 0, deviceDigest: 0, streams: STREAMS },
    } as unknown as OwnershipRecord,
    revision: 7,
  } satisfies OwnershipEntry,
});
const switching = switchingWith(0);
const won = ({ destination: { phase } }: Watch): DestinationEvent => {
  if (!("settlement" in phase)) throw new Error(phase._tag);
  return {
    _tag: "RecordWritten",
    op: phase.settlement.record.op,
    outcome: { revision: phase.settlement.revision + 1 },
  };
};

let watch: Watch;
beforeEach(() => {
  watch = new Watch();
});
const ready = (): Watch => watch.happen(prepared()).happen(watch.report("ready"));
const loading = (): Watch => ready().happen(switching);
const committed = (): Watch => {
  loading().happen(watch.report("loaded")).happen({ _tag: "DeviceStateLoaded" });
  return watch.happen(won(watch));
};

describe("a loader whose guest has devices", () => {
  it("is ready once they can take their streams, not before", () => {
    watch.happen(prepared());
    expect(watch.tells()).toEqual(["ready"]);
    expect(reportOf(watch.destination).phase).toBe("preparing");
    watch.happen(watch.report("opening"));
    expect(reportOf(watch.destination).phase).toBe("preparing");
    watch.happen(watch.report("ready"));
    expect(reportOf(watch.destination).phase).toBe("ready");
  });

  it("loads and commits only when they have loaded what the record promises, however complete the memory is", () => {
    loading();
    expect(watch.tells()).toEqual(["loaded"]);
    expect(watch.steps()).toEqual([]);
    watch.happen(watch.report("loading")).happen({ _tag: "PacketsApplied" });
    expect(watch.steps()).toEqual([]);
    watch.happen(watch.report("loaded"));
    expect(watch.steps()).toEqual(["load-device-state"]);
  });

  it("says at once that all memory is here: their configuration may wait for it, and the guest stands still", () => {
    ready().happen(switchingWith(1));
    expect(watch.tells()).toEqual(["loaded"]);
    watch.happen(watch.report("loading"));
    expect(watch.tells()).toEqual([]);
    const { fence } = watch.destination;
    Fence.applied(fence, { round: 1, item: 0 });
    watch.happen({ _tag: "PacketsApplied" });
    expect(watch.tells()).toEqual(["loaded"]);
    watch.happen({ _tag: "PacketsApplied" });
    expect(watch.tells()).toEqual([]);
  });

  it("lets them run once the record is won, and the guest once they run", () => {
    committed();
    expect(watch.tells()).toEqual(["running"]);
    expect(watch.steps()).toEqual([]);
    watch.happen(watch.report("starting"));
    expect(watch.steps()).toEqual([]);
    watch.happen(watch.report("running"));
    expect(watch.steps()).toEqual(["resume"]);
  });

  it("that do not start keep the guest waiting for ten seconds, and no longer", () => {
    committed().happen(watch.report("starting", { failure: FAILURE }));
    watch.happen({ _tag: "Tick" }, 9999);
    expect(watch.steps()).toEqual([]);
    watch.happen({ _tag: "Tick" }, 1);
    expect(watch.steps()).toEqual(["resume"]);
  });

  it.each(["preparing", "ready", "loading"] as const)(
    "discards them before their guest when one of them fails while it is %s",
    (when) => {
      if (when === "preparing") watch.happen(prepared());
      else if (when === "ready") ready();
      else loading();
      watch.happen(watch.report("ready", { failure: FAILURE }));
      expect(watch.tells()).toEqual(["discarded"]);
      expect(watch.steps()).toEqual([]);
      watch.happen(watch.report("discarded"));
      expect(watch.steps()).toEqual(["discard"]);
      expect(reportOf(watch.destination)).toMatchObject({ phase: "failed", failure: FAILURE });
    },
  );

  it("discards its guest after ten seconds when they do not go", () => {
    ready().happen({ _tag: "Abandon", failure: FAILURE });
    watch.happen({ _tag: "Tick" }, 9999);
    expect(watch.steps()).toEqual([]);
    watch.happen({ _tag: "Tick" }, 1);
    expect(watch.steps()).toEqual(["discard"]);
    // The second word of theirs changes nothing.
    watch.happen(watch.report("discarded"));
    expect(watch.steps()).toEqual([]);
  });

  it("discards its guest at once when nothing was begun with them", () => {
    watch.happen({ _tag: "Abandon", failure: FAILURE }).happen(prepared());
    expect(watch.tells()).toEqual([]);
    expect(watch.steps()).toEqual(["discard"]);
  });

  it("gives up an agent that knows nothing any more, and one that is silent for 45 s", () => {
    ready().happen(watch.report("unknown", { incarnation: "e".repeat(16) as never }));
    expect(watch.destination.failure).toMatchObject({ code: "vfio-agent-lost", side: "destination" });
    watch = new Watch();
    ready().happen({ _tag: "Heard" }, 44_000).happen({ _tag: "Tick" }, 999);
    expect(watch.destination.failure).toBeNull();
    watch.happen({ _tag: "Tick" }, 1);
    expect(watch.destination.failure).toMatchObject({ code: "vfio-agent-lost" });
    expect(watch.tells()).toEqual(["discarded"]);
  });

  it("lets an agent that was started anew run what the one before had loaded", () => {
    committed().happen(watch.report("running", { incarnation: "e".repeat(16) as never }));
    expect(watch.steps()).toEqual(["resume"]);
  });

  it("says who has advised switchover-ack and not given it, once the devices were opened", () => {
    const info = (device: string, loaded?: boolean) => ({
      device,
      ...(loaded === undefined ? {} : { "initial-loaded": loaded }),
    });
    watch.happen(prepared()).happen(watch.report("opening"));
    expect(reportOf(watch.destination)["switchover-ack"]).toBeUndefined();
    const devices = [info("net0", true), info("net1", false), info("gpu0")] as never;
    watch.happen(watch.report("ready", { devices }));
    expect(reportOf(watch.destination)["switchover-ack"]).toEqual({ advised: 2, pending: ["net1"] });
  });
});

describe("a loader whose guest has devices, whatever comes in whatever order", () => {
  it("never lets them, or the guest, run before the record is won, and never one after the other's turn", () => {
    const endings = new Set<string>();
    const choices = fc.array(fc.tuple(fc.nat(99), fc.constantFrom(0, 1, 100, 5000, 12_000)), {
      maxLength: 60,
      size: "max",
    });
    fc.assert(
      fc.property(choices, (fate) => {
        watch = new Watch();
        for (const [choice, ms] of fate) {
          const { phase } = watch.destination;
          const helpful: DestinationEvent[] = [prepared(), switching, { _tag: "PacketsApplied" }];
          if (watch.told !== null) helpful.push(watch.report(watch.told as never));
          if ("settlement" in phase) helpful.push(won(watch));
          if (watch.unanswered.has("load-device-state")) helpful.push({ _tag: "DeviceStateLoaded" });
          if (watch.unanswered.has("resume")) helpful.push({ _tag: "Resumed" });
          if (watch.unanswered.has("discard")) helpful.push({ _tag: "Discarded" });
          const others: DestinationEvent[] = [
            { _tag: "Tick" },
            { _tag: "Tick" },
            watch.report("unknown"),
            watch.report("opening"),
            watch.report("running", { epoch: EPOCH - 1 }),
            watch.report("loading", { failure: FAILURE }),
            { _tag: "Abandon", failure: FAILURE },
            { _tag: "GuestEnded", failure: FAILURE },
            { _tag: "LocalFailed", step: "load-device-state", failure: FAILURE },
          ];
          const candidates = choice < 93 ? helpful : others;
          watch.happen(candidates[choice % candidates.length]!, choice < 93 ? 0 : ms);
        }
        endings.add(watch.destination.phase._tag);
      }),
      { numRuns: 1000 },
    );
    for (const phase of ["Running", "Failed"]) expect(endings).toContain(phase);
  });
});
