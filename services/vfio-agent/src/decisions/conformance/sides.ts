/** Stand-ins for the RAM sender and the loader: they lead the agents as those do, decide as little as possible, and write the record. */
import type { LoadReport, LoadStage, SavedStreams, SaveReport, SaveStage } from "@godwit/protocol";
import * as AgentLink from "@godwit/vfio/agent-link";
import type { DestinationHost } from "./destination-host.ts";
import type { SourceHost } from "./source-host.ts";
import { must } from "./violation.ts";
import type { World } from "./world.ts";

const PERIOD_MS = 20;
/** A switchover that takes longer is undone, ms. */
const DEADLINE_MS = 4000;
const SILENT_MS = 3000;
/** What has not come to its switchover by then is given up, as a coordinator does it, ms. */
const STALLED_MS = 20_000;
/** Devices that do not go on are not waited for longer, ms. */
const GIVE_UP_MS = 10_000;

type Phase = "waiting" | "precopy" | "stopping" | "saving" | "switching" | "releasing" | "failed" | "completed";
type LoadingPhase = "preparing" | "ready" | "starting" | "running" | "discarding" | "discarded";

export class Sides {
  readonly world: World;
  readonly source: SourceHost;
  readonly destination: DestinationHost;
  readonly save = AgentLink.make<SaveStage, SaveReport>("source");
  readonly load = AgentLink.make<LoadStage, LoadReport>("destination");
  phase: Phase = "waiting";
  loading: LoadingPhase = "preparing";
  streams: ReadonlyArray<SavedStreams> = [];
  memoryLoadedAt = Number.POSITIVE_INFINITY;
  switchedAt = 0;
  stopNotBefore = 0;
  abortAt: number;

  constructor(world: World, source: SourceHost, destination: DestinationHost) {
    this.world = world;
    this.source = source;
    this.destination = destination;
    const { dice, setting } = world;
    this.abortAt = dice.chance(setting.faults.abort) ? dice.between(0, 6000) : Number.POSITIVE_INFINITY;
    source.onReport = (report) => {
      world.send(() => this.saveReported(report));
      world.send(() => {
        for (const { device, "initial-end": at } of report.devices)
          if (at !== undefined) destination.dispatch({ _tag: "InitialEnds", device, at });
      });
    };
    destination.onReport = (report) => world.send(() => this.loadReported(report));
    source.onPacket = (stream, piece) =>
      world.send(() => destination.receive(stream, { ...piece, payload: Uint8Array.from(piece.payload) }));
    destination.onAcknowledge = (items) => {
      this.checkAcknowledged(items);
      world.send(() => source.dispatch({ _tag: "Applied", items: Uint32Array.from(items) }));
    };
    this.leadLoad("ready");
    this.tick();
  }

  get isOver(): boolean {
    const sourceOver = this.phase === "failed" || this.phase === "completed";
    return sourceOver && (this.loading === "running" || this.loading === "discarded");
  }

  private checkAcknowledged(items: ReadonlyArray<number>): void {
    for (const item of items) {
      const cut = this.source.cuts.get(item);
      if (cut === undefined) continue;
      const device = this.world.destination[(cut.stream - 1) >> 1]!;
      const written = cut.stream % 2 === 1 ? device.stream.length : (device.config?.length ?? 0);
      must(cut.end <= written, `slice ${item} is acknowledged, ${written} of ${cut.end} bytes are written`);
    }
  }

  private tellSave(stage: SaveStage): void {
    const { agent } = this.save;
    const parameters = this.world.setting.parameters;
    const command = { _tag: "Save", migration: "m", epoch: 1, guest: "vm1", stage, parameters, "block-bytes": [] };
    this.world.send(() => this.source.command({ ...command, ...(agent === null ? {} : { agent }) } as never));
  }

  private tellLoad(stage: LoadStage): void {
    const { world, streams, load } = this;
    const { parameters } = world.setting;
    const command = { _tag: "Load", migration: "m", epoch: 1, guest: "vm1", stage, parameters, streams };
    const more = { devices: this.destination.offers(), "memory-loaded": world.now >= this.memoryLoadedAt };
    const known = load.agent === null ? {} : { agent: load.agent };
    world.send(() => this.destination.command({ ...command, ...more, ...known } as never));
  }

  private leadSave(stage: SaveStage): void {
    AgentLink.lead(this.save, stage, this.world.now);
    this.tellSave(stage);
  }

  private leadLoad(stage: LoadStage): void {
    AgentLink.lead(this.load, stage, this.world.now);
    this.tellLoad(stage);
  }

  private saveReported(report: SaveReport): void {
    const { world } = this;
    if (this.phase === "failed" || this.phase === "completed" || this.phase === "waiting") return;
    const failure = AgentLink.reported(this.save, report, ["resumed", "discarded"], world.now);
    if (failure !== null) this.fail();
    if (this.phase === "releasing" && report.stage === "resumed") this.released(report);
    if (this.phase === "stopping" && report.stage === "stopped") this.phase = "saving";
    if (this.phase === "saving" && report.streams !== undefined) this.switch(report.streams);
    if (this.phase === "precopy" && report.stage === "precopy" && this.stopNotBefore === 0)
      this.stopNotBefore = world.now + world.dice.between(0, 1500);
  }

  private loadReported(report: LoadReport): void {
    const { load, world } = this;
    const failure = AgentLink.reported(load, report, ["running", "discarded"], world.now);
    if (this.loading === "discarding" && report.stage === "discarded") this.discarded();
    if (this.loading === "starting" && report.stage === "running") this.started();
    if (this.loading !== "preparing" && this.loading !== "ready") return;
    if (failure !== null) return this.fail();
    if (this.loading === "preparing" && report.stage === "ready") {
      this.loading = "ready";
      if (this.phase !== "waiting") return;
      this.phase = "precopy";
      this.leadSave("precopy");
    }
    if (this.phase === "switching" && report.stage === "loaded") this.commit();
  }

  private stop(): void {
    this.phase = "stopping";
    this.world.stoppedAt = this.world.now;
    this.leadSave("stopped");
  }

  private switch(streams: ReadonlyArray<SavedStreams>): void {
    const { world } = this;
    this.phase = "switching";
    world.record = "switching";
    this.streams = streams;
    this.memoryLoadedAt = world.now + world.dice.between(0, 200);
    this.switchedAt = world.now;
    this.leadLoad(world.breaks("devices start before the record is won") ? "running" : "loaded");
  }

  private commit(): void {
    const { world } = this;
    world.checkLoaded();
    this.phase = "completed";
    this.loading = "starting";
    world.record = "destination";
    this.leadLoad("running");
    this.leadSave("discarded");
    world.check();
  }

  private started(): void {
    const { world } = this;
    this.loading = "running";
    for (const { state, traits } of world.destination)
      must(state === "RUNNING" || world.isFaulty, `${traits.device} is in ${state} with its guest running`);
  }

  /** The guest goes on at the source. */
  private fail(): void {
    const { world } = this;
    world.isFaulty = true;
    if (this.phase === "completed" || this.phase === "failed" || this.phase === "releasing") return;
    world.record = "source";
    const began = this.phase !== "waiting";
    this.phase = began ? "releasing" : "failed";
    if (began) this.leadSave("resumed");
    this.loading = "discarding";
    this.leadLoad("discarded");
  }

  private released(report: SaveReport): void {
    this.phase = "failed";
    for (const { state, traits } of this.world.source)
      must(state === "RUNNING" || report.failure !== undefined, `${traits.device} is in ${state}, and nobody says why`);
    for (const { state, traits } of this.world.source)
      must(state === "RUNNING" || this.source.saving?.failure !== null, `${traits.device} is left in ${state}`);
  }

  private discarded(): void {
    this.loading = "discarded";
    for (const { state, traits } of this.world.destination)
      must(state === "STOP" || this.world.isFaulty, `${traits.device} is discarded in ${state}`);
  }

  private tick(): void {
    const { world, save, load } = this;
    const { now } = world;
    const acked = !world.setting.switchoverAck || this.ackPending() === 0;
    if (this.phase === "precopy" && this.stopNotBefore !== 0 && now >= this.stopNotBefore && acked) this.stop();
    const stage = AgentLink.tellDue(save, now);
    if (stage !== null) this.tellSave(stage);
    const wanted = AgentLink.tellDue(load, now);
    if (wanted !== null) this.tellLoad(wanted);
    const isStopped = this.phase === "stopping" || this.phase === "saving";
    if (isStopped && AgentLink.silence(save, SILENT_MS, now) !== null) this.fail();
    if (this.phase === "switching" && now - this.switchedAt >= DEADLINE_MS) this.fail();
    if (this.phase === "saving" && now - save.wantedSince >= DEADLINE_MS) this.fail();
    if (now >= this.abortAt || (now >= STALLED_MS && (this.phase === "waiting" || this.phase === "precopy")))
      this.fail();
    if (this.phase === "releasing" && now - save.wantedSince >= GIVE_UP_MS) this.phase = "failed";
    if (this.loading === "discarding" && now - load.wantedSince >= GIVE_UP_MS) this.loading = "discarded";
    if (this.loading === "starting" && now - load.wantedSince >= GIVE_UP_MS) this.loading = "running";
    world.check();
    world.timeline.after(PERIOD_MS, () => this.tick());
  }

  private ackPending(): number {
    return (this.load.report?.devices ?? []).filter((info) => info["initial-loaded"] === false).length;
  }
}
