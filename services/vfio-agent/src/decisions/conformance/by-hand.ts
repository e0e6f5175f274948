/** An agent whose devices and messages are played by hand, one event at a time: for what a statement about one moment needs. */
import { PARAMETER_DEFAULTS, type Parameters } from "@godwit/protocol";
import type { DeviceState, MigrationFeatures } from "@godwit/vfio";
import { makeLoading, step as stepLoading } from "../loading.ts";
import type { Loading, LoadingEffect, LoadingEvent, LoadOp } from "../loading-state.ts";
import { makeSaving, step as stepSaving } from "../saving.ts";
import type { DeviceOp, Saving, SavingEffect, SavingEvent } from "../saving-state.ts";
import { failureOf } from "./operation.ts";
import { must } from "./violation.ts";

const ANSWERS = {
  Opened: ["Open"],
  Arrived: ["Arc", "Reset"],
  Info: ["Info"],
  Read: ["Read"],
  ConfigRead: ["ReadConfig"],
  Written: ["Write"],
  ConfigWritten: ["WriteConfig"],
};

/** Both sides: an event in, and the operations that were asked of devices since. */
abstract class ByHand<E, F extends { readonly _tag: string }, O> {
  now = 1000;
  effects: ReadonlyArray<F> = [];
  /** By device, what it is asked to do. */
  asked: Record<number, O> = {};

  protected abstract step(event: E): ReadonlyArray<F>;

  happen(event: E, ms = 0): this {
    this.now += ms;
    this.effects = this.step(event);
    for (const effect of this.effects) {
      const asked = effect as unknown as { readonly _tag: string; readonly device: number; readonly op: O };
      if (asked._tag === "Op") this.asked[asked.device] = asked.op;
    }
    return this;
  }

  tick(ms: number): this {
    return this.happen({ _tag: "Tick" } as E, ms);
  }

  opened(device: number, features: Partial<MigrationFeatures> = {}, state: DeviceState = "RUNNING"): this {
    const all = { stopCopy: true, p2p: false, preCopy: false, ...features };
    return this.answer({ _tag: "Opened", device, features: all, state, switchoverMs: 0 } as E, device);
  }

  /** It has gone where it was sent. */
  arrived(device: number, state: DeviceState, ms = 1): this {
    return this.answer({ _tag: "Arrived", device, state, ms } as E, device);
  }

  failed(device: number, state: DeviceState | null = null): this {
    return this.answer({ _tag: "OpFailed", device, state, failure: failureOf("a fault") } as E, device);
  }

  /** A device answers what it was asked, and nothing else. */
  answer(event: E, device: number): this {
    const asked = (this.asked[device] as { readonly _tag: string } | undefined)?._tag ?? "nothing";
    const { _tag } = event as { readonly _tag: keyof typeof ANSWERS };
    must(_tag === ("OpFailed" as string) || ANSWERS[_tag].includes(asked), `${_tag} is no answer to ${asked}`);
    delete this.asked[device];
    return this.happen(event);
  }

  wakesAt(): number {
    const wakes = this.effects.flatMap((effect) => ("at" in effect ? [effect.at as number] : []));
    return Math.min(...wakes);
  }
}

export class SavingByHand extends ByHand<SavingEvent, SavingEffect, DeviceOp> {
  readonly saving: Saving;

  constructor(
    devices: number,
    parameters: Partial<Parameters> = {},
    want: Saving["want"] = "precopy",
    itemPagesMax = 1,
  ) {
    super();
    this.saving = makeSaving({
      migration: "m",
      epoch: 1,
      guest: "vm1",
      incarnation: "a",
      parameters: { ...PARAMETER_DEFAULTS, "max-bandwidth": 0, ...parameters },
      parametersRevision: 0,
      devices: Array.from({ length: devices }, (_, n) => ({ device: `dev${n}`, provider: "simulated" })),
      itemPagesMax,
      want,
      now: this.now,
    });
    this.tick(0);
  }

  protected step(event: SavingEvent): ReadonlyArray<SavingEffect> {
    return stepSaving(this.saving, event, this.now);
  }

  wanted(stage: Saving["want"]): this {
    return this.tuned(this.saving.parameters, this.saving.parametersRevision, stage);
  }

  tuned(parameters: Parameters, parametersRevision: number, stage = this.saving.want): this {
    return this.happen({ _tag: "Wanted", stage, parameters, parametersRevision });
  }

  info(
    device: number,
    initialBytes: number | null,
    dirtyBytes: number | null = initialBytes === null ? null : 0,
  ): this {
    return this.answer({ _tag: "Info", device, initialBytes, dirtyBytes, stopCopyBytes: null }, device);
  }

  read(device: number, bytes: number): this {
    return this.answer({ _tag: "Read", device, bytes, digest: 0 }, device);
  }

  applied(...items: number[]): this {
    return this.happen({ _tag: "Applied", items: Uint32Array.from(items) });
  }

  sent(): ReadonlyArray<Extract<SavingEffect, { _tag: "Dispatch" }>> {
    return this.effects.filter((effect) => effect._tag === "Dispatch");
  }
}

export class LoadingByHand extends ByHand<LoadingEvent, LoadingEffect, LoadOp> {
  readonly loading: Loading;

  constructor(devices: number, parameters: Partial<Parameters> = {}, want: Loading["want"] = "ready") {
    super();
    this.loading = makeLoading({
      migration: "m",
      epoch: 1,
      guest: "vm1",
      incarnation: "b",
      parameters: { ...PARAMETER_DEFAULTS, ...parameters },
      configAfterMemory: parameters["x-migration-load-config-after-iter"] === "on",
      devices: Array.from({ length: devices }, (_, n) => ({
        device: `dev${n}`,
        provider: "simulated",
        p2p: false,
        "pre-copy": true,
        "dirty-logging": false,
      })),
      want,
      now: this.now,
    });
    this.tick(0);
  }

  protected step(event: LoadingEvent): ReadonlyArray<LoadingEffect> {
    return stepLoading(this.loading, event, this.now);
  }

  wanted(stage: Loading["want"], bytes = 0, configBytes = 0, memoryLoaded = true): this {
    const streams = this.loading.devices.map(({ offered }) => ({
      device: offered.device,
      bytes,
      digest: 0,
      "config-bytes": configBytes,
      "config-digest": 0,
    }));
    return this.happen({ _tag: "Wanted", stage, streams, memoryLoaded });
  }

  /** Of the data stream of device 0, or of its configuration space. */
  slice(item: number, offset: number, bytes: number, stream = 1): this {
    return this.happen({ _tag: "Slice", stream, piece: { item, offset, payload: new Uint8Array(bytes) } });
  }

  written(device = 0, digest = 0): this {
    return this.answer({ _tag: "Written", device, digest }, device);
  }

  acknowledged(): number[] {
    return this.effects.flatMap((effect) => (effect._tag === "Acknowledge" ? [...effect.items] : []));
  }
}
