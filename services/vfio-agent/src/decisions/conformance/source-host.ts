/** The VFIO agent at the source, its devices and the workers of its host. */
import { crc32 } from "node:zlib";
import { configStream, dataStream, type Parameters, type SaveReport, type VfioCommand } from "@godwit/protocol";
import { route } from "../agent.ts";
import type { Piece } from "../reassembly.ts";
import { saveReportOf } from "../report.ts";
import { makeSaving, step } from "../saving.ts";
import { windowBytes } from "../saving-device.ts";
import type { DeviceOp, Saving, SavingEffect, SavingEvent } from "../saving-state.ts";
import { contentOf, type ModelDevice } from "./model-device.ts";
import { failureOf, opened, operate, walk } from "./operation.ts";
import { Process } from "./process.ts";
import { must } from "./violation.ts";

export type SaveCommand = Extract<VfioCommand, { _tag: "Save" }>;
/** Of one page, so that small streams have many. */
const ITEM_PAGES_MAX = 1;

export class SourceHost extends Process<SavingEvent> {
  saving: Saving | null = null;
  /** Bytes below are no longer in the arena. */
  readonly forgotten = new Map<number, number>();
  /** Where each slice of the present session stands. */
  readonly cuts = new Map<number, { readonly stream: number; readonly end: number }>();
  readonly phases = new Set<string>();
  onReport: (report: SaveReport) => void = () => {};
  onPacket: (stream: number, piece: Piece) => void = () => {};

  protected forget(): void {
    this.saving = null;
  }

  command(command: SaveCommand): void {
    const { saving, world } = this;
    const known = saving === null ? [] : [{ role: "Save" as const, migration: "m", epoch: 1, guest: "vm1" }];
    const routed = route(known, this.incarnation, command);
    if (routed._tag === "Unknown" && !world.breaks("a restarted agent goes on with a session it does not know")) {
      const unknown = { migration: "m", epoch: 1, incarnation: this.incarnation, stage: "unknown", devices: [] };
      return this.onReport({ ...unknown, bandwidth: 0 } as never);
    }
    if (routed._tag === "Ignore") return;
    if (this.saving === null) {
      this.saving = makeSaving({
        migration: "m",
        epoch: 1,
        guest: "vm1",
        incarnation: this.incarnation,
        parameters: { ...world.setting.parameters, ...this.leftOut() },
        parametersRevision: 0,
        devices: world.source.map(({ traits }) => ({ device: traits.device, provider: "simulated" })),
        itemPagesMax: ITEM_PAGES_MAX,
        want: command.stage,
        now: world.now,
      });
      this.cuts.clear();
      this.dispatch({ _tag: "Tick" });
      for (const worker of world.workers) this.dispatch({ _tag: "WorkerUp", worker });
    }
    const { parameters } = this.saving;
    this.dispatch({ _tag: "Wanted", stage: command.stage, parameters, parametersRevision: 0 });
    this.report();
  }

  private leftOut(): Partial<Parameters> {
    if (this.world.breaks("an arc may take for ever")) return { "downtime-limit": 1e9 };
    if (!this.world.breaks("no window")) return {};
    return { "x-migration-max-queued-bytes": 1e9, "x-migration-max-queued-buffers": 1e6 };
  }

  dispatch(event: SavingEvent): void {
    if (this.saving === null) return;
    if (this.world.breaks("a device does two things at once"))
      for (const device of this.saving.devices) device.busy = null;
    const effects = step(this.saving, event, this.world.now);
    this.phases.add(this.saving.phase);
    for (const effect of effects) this.perform(effect);
    this.check(this.saving);
  }

  private perform(effect: SavingEffect): void {
    switch (effect._tag) {
      case "Op":
        if (effect.op._tag === "Read") this.overwrite(dataStream(effect.device), effect.op);
        return this.begin(effect.device, effect.op);
      case "Dispatch":
        return this.handOut(effect);
      case "Report":
        return this.report();
      case "WakeAt":
        return this.alarm(effect.at);
    }
  }

  /** What is read takes the place of what the ring held before. */
  private overwrite(
    stream: number,
    { offset, bytesMax }: { readonly offset: number; readonly bytesMax: number },
  ): void {
    const below = offset + bytesMax - windowBytes(this.saving!);
    if (below <= 0) return;
    must(below <= this.writtenOf(stream), "bytes are overwritten that have not arrived");
    this.forgotten.set(stream, below);
  }

  private report(): void {
    if (this.saving !== null) this.onReport(saveReportOf(this.saving));
  }

  private writtenOf(stream: number): number {
    const device = this.world.destination[(stream - 1) >> 1]!;
    return stream % 2 === 1 ? device.arrived : (device.config?.length ?? 0);
  }

  private begin(index: number, op: DeviceOp): void {
    const { world } = this;
    const device = world.source[index]!;
    const isQuiet = ({ state, traits }: ModelDevice): boolean =>
      !traits.features.p2p || (state !== "RUNNING" && state !== "PRE_COPY");
    if (op._tag === "Arc" && op.to === "STOP_COPY")
      must(world.source.every(isQuiet), "a device stops while another may still write into it");
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
        const alone = world.breaks("devices stop without regard for each other");
        answer({
          _tag: "Opened",
          device: index,
          features: alone ? { ...features, p2p: false } : features,
          state: device.state,
          switchoverMs: 0,
        });
      });
    operate(
      world,
      device,
      (isFault, ms) => {
        // A counter that cannot be had is no failure.
        if (isFault && op._tag !== "Arc") return failed("a fault");
        switch (op._tag) {
          case "Arc": {
            const why = walk(world, device, op.to, isFault);
            return why === null ? answer({ _tag: "Arrived", device: index, state: op.to, ms }) : failed(why);
          }
          case "Reset":
            device.reset();
            return answer({ _tag: "Arrived", device: index, state: "RUNNING", ms });
          case "Info":
            return answer({
              _tag: "Info",
              device: index,
              ...device.info(world.now),
              stopCopyBytes: device.traits.stopBytes,
            });
          case "Read": {
            // Short reads are usual.
            const bytesMax = world.dice.chance(0.3) ? world.dice.between(1, op.bytesMax) : op.bytesMax;
            const { length } = device.read(op.offset, bytesMax, world.now);
            return answer({ _tag: "Read", device: index, bytes: length, digest: device.digest() });
          }
          case "ReadConfig": {
            const config = world.configs[index]!;
            return answer({ _tag: "ConfigRead", device: index, bytes: config.length, digest: crc32(config) });
          }
        }
      },
      op._tag === "Arc",
    );
  }

  private handOut({ worker, item, stream, offset, bytes }: Extract<SavingEffect, { _tag: "Dispatch" }>): void {
    const { world } = this;
    this.cuts.set(item, { stream, end: offset + bytes });
    world.send(() => {
      if (!world.workers.has(worker)) return;
      if (world.strikes(world.setting.faults.refuse))
        return world.send(() =>
          this.dispatch({ _tag: "Refused", items: Uint32Array.of(item), reason: "no such file" }),
        );
      this.onPacket(stream, { item, offset, payload: this.payloadOf(stream, offset, bytes) });
    });
  }

  /** What a worker finds in the arena; zeros where it was forgotten. */
  private payloadOf(stream: number, offset: number, bytes: number): Uint8Array {
    const { world } = this;
    if (offset < (this.forgotten.get(stream) ?? 0)) return new Uint8Array(bytes);
    const index = (stream - 1) >> 1;
    const payload =
      stream === dataStream(index)
        ? contentOf(world.source[index]!.opened, offset, bytes)
        : world.configs[index]!.slice(offset, offset + bytes);
    if (world.strikes(world.setting.faults.flip)) {
      world.isFlipped = true;
      payload[world.dice.between(0, bytes - 1)]! ^= 255;
    }
    return payload;
  }

  private check(saving: Saving): void {
    const { parameters, devices } = this.world.setting;
    for (const [index, { device, initialBytes, tells, features }] of devices.entries()) {
      for (const number of [dataStream(index), configStream(index)]) {
        const open = saving.slices.streams.get(number)?.open ?? [];
        const bytes = open.reduce((sum, slice) => sum + slice.bytes, 0);
        if (number === configStream(index)) continue;
        must(
          bytes <= parameters["x-migration-max-queued-bytes"],
          `${bytes} bytes of ${device} wait for the destination`,
        );
        must(open.length <= parameters["x-migration-max-queued-buffers"], `${open.length} slices of ${device} wait`);
      }
      const { initialEnd } = saving.devices[index]!;
      if (initialEnd !== null && features.preCopy && tells)
        must(initialEnd >= initialBytes, `initial data of ${device} ends at ${initialBytes}, not ${initialEnd}`);
    }
    if (parameters["x-migration-multifd-transfer"] === "off")
      for (const { channel } of saving.slices.byItem.values())
        must(channel === null || channel === 0, "a slice goes over another channel than the first");
    this.checkBudget(saving);
    this.world.check();
  }

  /** Nothing that a device takes in a switchover is waited for longer than `downtime-limit`. */
  private checkBudget(saving: Saving): void {
    const { world } = this;
    if (saving.phase !== "Quiescing" && saving.phase !== "Stopping") return;
    if (world.stoppedAt === null || saving.failure !== null) return;
    for (const { device, busy, busySince } of saving.devices) {
      const waits = busy === null ? 0 : world.now - Math.max(busySince, saving.phaseSince);
      must(waits <= world.setting.parameters["downtime-limit"] + 5, `${device} has been waited for ${waits} ms`);
    }
  }
}
