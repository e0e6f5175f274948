/** What both hosts share: time, chance, the way between them, the ownership record, and what must never be. */
import { crc32 } from "node:zlib";
import { isRunning } from "@godwit/vfio";
import { type Dice, makeDice } from "./dice.ts";
import { contentOf, ModelDevice } from "./model-device.ts";
import type { Setting } from "./setting.ts";
import { Timeline } from "./timeline.ts";
import { must } from "./violation.ts";

/** Faults happen until then, ms; afterwards everything must come to its end. */
const STORM_MS = 8000;

export class World {
  readonly setting: Setting;
  readonly timeline = new Timeline();
  readonly dice: Dice;
  readonly source: ReadonlyArray<ModelDevice>;
  readonly destination: ReadonlyArray<ModelDevice>;
  readonly configs: ReadonlyArray<Uint8Array>;
  readonly workers = new Set(["w0", "w1"]);
  record: "source" | "switching" | "destination" = "source";
  /** When the guest's processors stood still at the source; null while they run. */
  stoppedAt: number | null = null;
  isFlipped = false;
  /** A device does not answer any more: some things cannot end. */
  isHung = false;
  /** Somebody was told of a failure, or the operator gave up. */
  isFaulty = false;

  constructor(setting: Setting) {
    this.setting = setting;
    this.dice = makeDice(setting.seed ^ 0x5eed);
    this.source = setting.devices.map((traits) => new ModelDevice(traits));
    this.destination = setting.devices.map((traits) => new ModelDevice(traits));
    this.configs = setting.devices.map(({ configBytes }, index) => contentOf(100 + index, 0, configBytes));
  }

  get now(): number {
    return this.timeline.now;
  }

  strikes(rate: number): boolean {
    const strikes = this.now < STORM_MS && this.dice.chance(rate);
    if (strikes) this.isFaulty = true;
    return strikes;
  }

  /** One message: lost, doubled, late, in any order. */
  send(arrive: () => void): void {
    const { faults } = this.setting;
    if (this.now < STORM_MS && this.dice.chance(faults.lose)) return;
    const copies = this.now < STORM_MS && this.dice.chance(faults.double) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      const isLate = this.now < STORM_MS && this.dice.chance(faults.lose);
      this.timeline.after(this.dice.between(1, faults.delayMs) * (isLate ? 10 : 1), arrive);
    }
  }

  breaks(breakage: Setting["broken"]): boolean {
    return this.setting.broken === breakage;
  }

  /** After whatever happened. */
  check(): void {
    for (const [index, device] of this.source.entries()) {
      const other = this.destination[index]!;
      const name = device.traits.device;
      if (this.record === "destination")
        must(!isRunning(device.state), `${name} works at the source, which lost the guest`);
      else
        must(
          !(other.isLoaded && isRunning(other.state)),
          `${name} works at the destination, which has not won the guest`,
        );
      if (this.setting.parameters["x-allow-pre-copy"] === "off")
        must(
          !device.seen.has("PRE_COPY") && !device.seen.has("PRE_COPY_P2P"),
          `${name} is in PRE_COPY, which is not allowed`,
        );
    }
  }

  /** What was just written at the destination, behind `from` bytes, is what was read at the source there. */
  checkWritten(index: number, from: number): void {
    const [was, is] = [this.source[index]!.stream, this.destination[index]!.stream];
    must(is.length <= was.length, `${is.length} bytes written, ${was.length} were read`);
    if (this.isFlipped) return;
    for (let at = from; at < is.length; at++) must(is[at] === was[at], `byte ${at} of device ${index} is another one`);
  }

  /** Before the destination may have the guest. */
  checkLoaded(): void {
    for (const [index, device] of this.destination.entries()) {
      const origin = this.source[index]!;
      const name = device.traits.device;
      must(device.state === "STOP" && device.isLoaded, `${name} is not loaded, but ${device.state}`);
      must(
        device.stream.length === origin.stream.length,
        `${name} has ${device.stream.length} of ${origin.stream.length} bytes`,
      );
      must(device.digest() === origin.digest(), `${name} has other bytes than were saved`);
      must(
        crc32(device.config ?? new Uint8Array(0)) === crc32(this.configs[index]!),
        `${name} has another configuration space than was saved`,
      );
    }
  }
}
