/** A source whose guest has VFIO devices, watched from outside: what their agent may say, and what must never come before its word. */
import type { Failure, SaveReport, SaveStage } from "@godwit/protocol";
import { expect } from "vitest";
import type { SourceEffect, SourceEvent } from "./source-state.ts";
import { make, offer, Watch } from "./source-watch.conformance.ts";

export const AGENT = "c".repeat(16);
export const DEVICE_FAILURE: Failure = {
  code: "device-over-budget",
  actor: "vfio-agent",
  side: "source",
  step: "stop the device",
  reason: "device net0: RUNNING -> STOP_COPY takes 2000 ms, downtime-limit is 300 ms",
};
export const STREAMS = [{ device: "net0", bytes: 5000, digest: 1, "config-bytes": 256, "config-digest": 2 }];
/** As devices.ts has it, ms. */
const RELEASE_MS = 10_000;

const offerWithDevices = {
  ...offer,
  devices: [{ device: "net0", provider: "simulated" as const, p2p: true, "pre-copy": true, "dirty-logging": true }],
};

export class DevicesWatch extends Watch {
  told: SaveStage | null = null;
  toldAt = 0;
  /** Stages that were reported since they were asked for. */
  readonly seen = new Set<string>();
  streams: SaveReport["streams"];

  constructor(capabilities: Record<string, boolean> = {}) {
    super(make(capabilities));
  }

  report(stage: SaveReport["stage"], change: Partial<SaveReport> = {}): SourceEvent {
    const report = {
      migration: this.source.migration,
      epoch: this.source.epoch,
      incarnation: AGENT,
      stage,
      devices: [],
    };
    return { _tag: "DevicesReported", report: { ...report, bandwidth: 0, ...change } as SaveReport };
  }

  override happen(event: SourceEvent): void {
    const told = event._tag === "Described" ? { ...event, offer: offerWithDevices } : event;
    if (told._tag === "DevicesReported" && told.report.epoch === this.source.epoch) this.note(told.report);
    super.happen(told);
  }

  private note(report: SaveReport): void {
    // Another process in the middle of it has nothing of what was begun.
    if (report.incarnation !== AGENT && this.told !== "resumed" && this.told !== "discarded") return;
    if (report.stage === this.told) this.seen.add(report.stage);
    if (report.streams !== undefined) this.streams = report.streams;
  }

  override effects(effects: ReadonlyArray<SourceEffect>, cause: SourceEvent): void {
    for (const effect of effects) {
      if (effect._tag === "TellAgent") this.tell(effect.stage);
      if (effect._tag === "Local" && effect.step === "sync" && effect.round === 1)
        this.mustHaveSeen("precopy", "the first page is read");
      if (effect._tag === "Local" && effect.step === "save-device-state")
        this.mustHaveSeen("stopped", "the guest's own state is saved");
      if (effect._tag === "Local" && effect.step === "resume") this.mustBeReleased("the guest goes on");
      if (effect._tag !== "WriteRecord") continue;
      if (effect.record.state === "switching") expect(effect.record.manifest.streams).toEqual(this.streams ?? "known");
      if (effect.record.state === "source" && !effect.record.open) this.mustBeReleased("the record is closed");
    }
    super.effects(effects, cause);
  }

  private tell(stage: SaveStage): void {
    if (stage === "discarded" && !this.seenHandedOver) throw new Error("devices are discarded with their guest here");
    if (this.told !== stage) {
      this.toldAt = this.now;
      this.seen.delete(stage);
    }
    this.told = stage;
  }

  private mustHaveSeen(stage: SaveStage, what: string): void {
    if (!this.seen.has(stage)) throw new Error(`${what}, and nobody said that the devices are at ${stage}`);
  }

  private mustBeReleased(what: string): void {
    if (this.told === null) return;
    const isOverdue = this.told === "resumed" && this.now - this.toldAt >= RELEASE_MS;
    if (!this.seen.has("resumed") && !isOverdue) throw new Error(`${what} before its devices`);
  }

  override helpful(): SourceEvent[] {
    const events = super.helpful();
    if (this.told === null || this.source.phase._tag === "Ended") return events;
    const { phase } = this.source;
    if (phase._tag === "SavingDevices") events.push(this.report("stopped", { streams: STREAMS }));
    events.push(this.report(this.told));
    return events;
  }

  override harmful(): SourceEvent[] {
    return [
      ...super.harmful(),
      this.report("unknown"),
      this.report("stopping", { failure: DEVICE_FAILURE }),
      this.report("opening", { incarnation: "e".repeat(16) as never }),
    ];
  }

  override anyTime(): SourceEvent[] {
    return [
      ...super.anyTime(),
      this.report("opening"),
      this.report("resuming"),
      this.report("stopped", { epoch: this.source.epoch + 1, streams: STREAMS }),
      this.report("resumed", { epoch: Math.max(0, this.source.epoch - 1) }),
    ];
  }
}
