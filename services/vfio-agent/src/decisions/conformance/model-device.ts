/** A VFIO device at either side, as its state machine and its stream show it; it checks what is asked of it. */
import { crc32 } from "node:zlib";
import { type DeviceState, isRunning, isSaving, type MigrationFeatures, pathOf } from "@godwit/vfio";
import { must } from "./violation.ts";

export interface Traits {
  readonly device: string;
  readonly features: MigrationFeatures;
  readonly initialBytes: number;
  /** Written by its guest while it runs, so often, bytes each 10 ms. */
  readonly dirtyBytes: number;
  readonly stopBytes: number;
  readonly configBytes: number;
  /** VFIO_MIG_GET_PRECOPY_INFO is answered. */
  readonly tells: boolean;
}

/** Byte n of a stream; another opening of the stream gives other bytes. */
export const contentOf = (seed: number, offset: number, bytes: number): Uint8Array =>
  Uint8Array.from({ length: bytes }, (_, n) => ((offset + n) * 31 + ((offset + n) >> 8) + seed * 7) & 255);

export class ModelDevice {
  readonly traits: Traits;
  state: DeviceState = "RUNNING";
  isBusy = false;
  /** All that was read of this stream, or written into it, in order. */
  stream: number[] = [];
  /** The most that was ever written. */
  arrived = 0;
  opened = 0;
  initialLeft: number;
  dirty = 0;
  stopLeft = 0;
  lastAt = 0;
  config: Uint8Array | null = null;
  /** At the destination: it holds a stream that it found whole. */
  isLoaded = false;
  readonly seen = new Set<DeviceState>();

  constructor(traits: Traits) {
    this.traits = traits;
    this.initialLeft = traits.initialBytes;
  }

  /** Why the whole way is not walked; null: it is there. `stopAfter`: so many arcs are walked, and then it fails. */
  go(to: DeviceState, now: number, stopAfter: number): string | null {
    const path = pathOf(this.state, to, this.traits.features);
    if (path._tag === "Refused") return path.reason;
    for (const [index, arc] of path.arcs.entries()) {
      if (index >= stopAfter) return "a fault on the way";
      this.grow(now);
      if (arc.stream === "opens-saving" || arc.stream === "opens-resuming") this.open();
      if (arc.to === "STOP_COPY") this.stopLeft = this.traits.stopBytes;
      if (arc.from === "RESUMING" && arc.to === "STOP") this.isLoaded = true;
      this.state = arc.to;
      this.seen.add(arc.to);
    }
    return stopAfter < path.arcs.length || (stopAfter === 0 && path.arcs.length === 0) ? "a fault" : null;
  }

  reset(): void {
    this.state = "RUNNING";
    this.isLoaded = false;
    this.stream = [];
  }

  private open(): void {
    this.opened++;
    this.stream = [];
    this.initialLeft = this.traits.initialBytes;
    this.dirty = 0;
  }

  private grow(now: number): void {
    const steps = Math.floor(now / 10) - Math.floor(this.lastAt / 10);
    if (isRunning(this.state)) this.dirty = Math.min(60_000, this.dirty + steps * this.traits.dirtyBytes);
    this.lastAt = now;
  }

  info(now: number): { readonly initialBytes: number | null; readonly dirtyBytes: number | null } {
    this.grow(now);
    const tells = this.traits.tells && (this.state === "PRE_COPY" || this.state === "PRE_COPY_P2P");
    return tells
      ? { initialBytes: this.initialLeft, dirtyBytes: this.dirty }
      : { initialBytes: null, dirtyBytes: null };
  }

  /** At most so many bytes; none: nothing for now, or the end. `offset` is where the reader believes to be. */
  read(offset: number, bytesMax: number, now: number): Uint8Array {
    must(isSaving(this.state), `${this.traits.device} is read in ${this.state}`);
    must(offset === this.stream.length, `${this.traits.device} is at ${this.stream.length}, and read to ${offset}`);
    this.grow(now);
    const all = this.initialLeft + this.dirty + (this.state === "STOP_COPY" ? this.stopLeft : 0);
    const bytes = Math.min(bytesMax, all);
    const data = contentOf(this.opened, offset, bytes);
    let left = bytes;
    for (const part of ["initialLeft", "dirty", "stopLeft"] as const) {
      const taken = Math.min(left, this[part]);
      this[part] -= taken;
      left -= taken;
    }
    this.stream.push(...data);
    return data;
  }

  write(bytes: Uint8Array): void {
    must(this.state === "RESUMING", `${this.traits.device} is written in ${this.state}`);
    this.stream.push(...bytes);
    this.arrived = Math.max(this.arrived, this.stream.length);
  }

  digest(): number {
    return crc32(Uint8Array.from(this.stream));
  }
}
