/** The VFIO agent at the destination, and its devices. */
import { crc32 } from "node:zlib";
import type { LoadReport, OfferedDevice, VfioCommand } from "@godwit/protocol";
import { route } from "../agent.ts";
import { makeLoading, pendingAcks, step } from "../loading.ts";
import { isStarted } from "../loading-device.ts";
import type { Loading, LoadingEffect, LoadingEvent, LoadOp } from "../loading-state.ts";
import type { Piece } from "../reassembly.ts";
import { loadReportOf } from "../report.ts";
import { failureOf, opened, operate, walk } from "./operation.ts";
import { Process } from "./process.ts";
import { must } from "./violation.ts";

export type LoadCommand = Extract<VfioCommand, { _tag: "Load" }>;

export class DestinationHost extends Process<LoadingEvent> {
  loading: Loading | null = null;
  readonly phases = new Set<string>();
  onReport: (report: LoadReport) => void = () => {};
  onAcknowledge: (items: ReadonlyArray<number>) => void = () => {};

  protected forget(): void {
    this.loading = null;
  }

  offers(): OfferedDevice[] {
    const { devices, parameters } = this.world.setting;
    return devices.map(({ device, features }) => ({
      device,
      provider: "simulated",
      p2p: features.p2p,
      "pre-copy": features.preCopy && parameters["x-allow-pre-copy"] === "on",
      "dirty-logging": false,
    }));
  }

  command(command: LoadCommand): void {
    const { world } = this;
    const known = this.loading === null ? [] : [{ role: "Load" as const, migration: "m", epoch: 1, guest: "vm1" }];
    const routed = route(known, this.incarnation, command);
    if (routed._tag === "Unknown")
      return this.onReport({
        migration: "m" as never,
        epoch: 1,
        incarnation: this.incarnation as never,
        stage: "unknown",
        devices: [],
      });
    if (this.loading === null) {
      this.loading = makeLoading({
        migration: "m",
        epoch: 1,
        guest: "vm1",
        incarnation: this.incarnation,
        parameters: world.setting.parameters,
        configAfterMemory: world.setting.parameters["x-migration-load-config-after-iter"] === "on",
        devices: this.offers(),
        want: command.stage,
        now: world.now,
      });
      this.dispatch({ _tag: "Tick" });
    }
    const { stage, streams } = command;
    this.dispatch({ _tag: "Wanted", stage, streams, memoryLoaded: command["memory-loaded"] });
    this.report();
  }

  /** A packet has arrived. */
  receive(stream: number, piece: Piece): void {
    const { world, loading } = this;
    if (world.breaks("acknowledge before it is written")) this.onAcknowledge([piece.item]);
    if (!world.breaks("slices in the order of arrival") || loading === null)
      return this.dispatch({ _tag: "Slice", stream, piece });
    const device = loading.devices[(stream - 1) >> 1]!;
    const { next } = stream % 2 === 1 ? device.data : device.config;
    this.dispatch({ _tag: "Slice", stream, piece: { ...piece, offset: next } });
  }

  dispatch(event: LoadingEvent): void {
    if (this.loading === null) return;
    const effects = step(this.loading, event, this.world.now);
    this.phases.add(this.loading.phase);
    for (const effect of effects) this.perform(effect);
    this.check(this.loading);
  }

  private perform(effect: LoadingEffect): void {
    switch (effect._tag) {
      case "Op":
        return this.begin(effect.device, effect.op);
      case "Acknowledge":
        return this.onAcknowledge(effect.items);
      case "Report":
        return this.report();
      case "WakeAt":
        return this.alarm(effect.at);
    }
  }

  private report(): void {
    if (this.loading !== null) this.onReport(loadReportOf(this.loading));
  }

  private begin(index: number, op: LoadOp): void {
    const { world } = this;
    const device = world.destination[index]!;
    const answer = this.answering();
    const failed = (reason: string): void =>
      answer({
        _tag: "OpFailed",
        device: index,
        state: world.dice.chance(0.2) ? null : device.state,
        failure: failureOf(reason),
      });
    if (op._tag === "Open")
      return opened(world, device, (isOpen) => {
        if (!isOpen) return failed("not there");
        const { features } = device.traits;
        answer({ _tag: "Opened", device: index, features, state: device.state, switchoverMs: 0 });
      });
    if (op._tag === "Arc" && op.to === "RUNNING" && device.isLoaded) this.checkPeers(index);
    if (op._tag === "WriteConfig") this.checkConfigIsDue(index);
    operate(
      world,
      device,
      (isFault, ms) => {
        if (isFault && op._tag !== "Arc") return failed("a fault");
        switch (op._tag) {
          case "Arc": {
            const why = walk(world, device, op.to, isFault);
            return why === null ? answer({ _tag: "Arrived", device: index, state: op.to, ms }) : failed(why);
          }
          case "Reset":
            device.reset();
            return answer({ _tag: "Arrived", device: index, state: "RUNNING", ms });
          case "Write": {
            const from = device.stream.length;
            for (const { payload } of op.pieces) device.write(payload);
            world.checkWritten(index, from);
            return answer({ _tag: "Written", device: index, digest: this.digestOf(index) });
          }
          case "WriteConfig":
            device.config = Uint8Array.from(op.pieces.flatMap(({ payload }) => [...payload]));
            return answer({ _tag: "ConfigWritten", device: index, digest: this.configDigestOf(index) });
        }
      },
      op._tag === "Arc",
    );
  }

  private digestOf(index: number): number {
    const { world } = this;
    return (world.breaks("no digest") ? world.source : world.destination)[index]!.digest();
  }

  private configDigestOf(index: number): number {
    const { world } = this;
    return crc32(world.breaks("no digest") ? world.configs[index]! : world.destination[index]!.config!);
  }

  /** None runs while another one, into which it may write, still stands. */
  private checkPeers(index: number): void {
    const { destination } = this.world;
    for (const [other, { traits, state }] of destination.entries()) {
      const given = this.loading?.devices[other];
      const isGivenUp = given !== undefined && state !== "RUNNING" && isStarted(given);
      if (other === index || !traits.features.p2p || isGivenUp) continue;
      must(state === "RUNNING" || state === "RUNNING_P2P", `a device runs while ${traits.device} is in ${state}`);
    }
  }

  private checkConfigIsDue(index: number): void {
    const { world, loading } = this;
    const expected = loading?.expected?.[index];
    must(world.destination[index]!.stream.length === expected?.bytes, "the configuration space comes before the data");
    if (world.setting.parameters["x-migration-load-config-after-iter"] === "on")
      must(loading?.memoryLoaded === true, "the configuration space comes before the memory");
  }

  private check(loading: Loading): void {
    const { world } = this;
    world.check();
    if (loading.phase !== "Ready") return;
    const pending = pendingAcks(loading);
    for (const [index, { traits, stream }] of world.destination.entries()) {
      const offered = loading.devices[index]!.offered["pre-copy"];
      if (loading.devices[index]!.features !== null && offered && traits.tells && !pending.includes(traits.device))
        must(
          stream.length >= traits.initialBytes,
          `${traits.device} is acknowledged before its initial data is loaded`,
        );
    }
  }
}
