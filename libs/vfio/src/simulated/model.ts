/**
 * The simulated device: all that it does, without a clock, a socket or Effect. What takes time is a generator that yields how long
 * to wait; whoever drives it waits, and asks nothing else meanwhile. One that yields NEVER has no answer.
 *
 * It behaves as a driver of the kernel does: a SET walks arc by arc and stops where one fails, a RESUMING that has not all of its
 * stream stays RESUMING, and a reset leads from everywhere to RUNNING, with the content of a device just started.
 */
import { createHash } from "node:crypto";
import type { PrecopyInfo } from "../device.ts";
import { type Arc, arcName, type DeviceState, isRunning, type MigrationFeatures, pathOf } from "../state-machine.ts";
import { type ConfigSpace, makeConfigSpace } from "./config-space.ts";
import { type DmaDiagnosis, type DmaWindow, openDmaWindow } from "./dma-window.ts";
import { DeviceFailure } from "./failure.ts";
import { type Faults, makeFaults } from "./faults.ts";
import { type DeviceMemory, makeDeviceMemory } from "./memory.ts";
import { openResumingStream, type ResumingStream } from "./resuming-stream.ts";
import { openSavingStream, type SavingStream, streamBytesOf } from "./saving-stream.ts";
import type { DeviceFault, SimulatedSpec } from "./spec.ts";
import { digestOf } from "./stream-format.ts";

/** Something that takes time: yields ms to wait. Throws a DeviceFailure. */
export type Operation<A> = Generator<number, A, void>;
/** What an operation yields that is never answered. */
export const NEVER = Number.POSITIVE_INFINITY;

/** How often `account` is called for a device with a DMA window, ms: between any two steps of a migration. */
export const DMA_PERIOD_MS = 20;

/** A whole state at one moment. */
export interface StateMark {
  /** SHA-256 as hexadecimal digits: devices with one digest hold the same bytes. */
  readonly digest: string;
  /** How often a block of device memory had changed. */
  readonly generation: number;
}

/** How a device stands: for judges, who are nobody to the migration. */
export interface SimulatedDiagnosis extends StateMark {
  readonly state: DeviceState;
  /** What it was when it went to STOP_COPY last; null before. */
  readonly saved: StateMark | null;
  /** What was loaded into it last; null before. */
  readonly loaded: StateMark | null;
  /** Of the configuration space, SHA-256. */
  readonly configDigest: string;
  /** Of all streams, bytes. */
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly resets: number;
  /** How often it allocated what a loaded state needs. */
  readonly allocations: number;
  readonly dma: DmaDiagnosis | null;
}

const ZERO_PAGES = new Uint32Array(0);

export class SimulatedModel {
  readonly features: MigrationFeatures;
  readonly config: ConfigSpace;
  /** null: the device has no window into guest memory. */
  readonly dma: DmaWindow | null;
  readonly #spec: SimulatedSpec;
  /** ms, from anywhere, never backwards. */
  readonly #now: () => number;
  readonly #faults: Faults;
  #memory: DeviceMemory;
  #state: DeviceState = "RUNNING";
  /** Whether a guest works with the device: one that waits for a state must not touch memory that is being loaded. */
  #driven: boolean;
  #saving: SavingStream | null = null;
  #resuming: ResumingStream | null = null;
  #streams = 0;
  /** When its time was accounted for last, ms. */
  #accountedMs: number;
  /** When what was read has passed at the rate of reading, ms. */
  #readReadyMs = 0;
  #allocated = false;
  #checkDue = false;
  #saved: StateMark | null = null;
  #loaded: StateMark | null = null;
  #bytesRead = 0;
  #bytesWritten = 0;
  #resets = 0;
  #allocations = 0;

  constructor(spec: SimulatedSpec, now: () => number) {
    this.features = { stopCopy: true, p2p: spec.p2p, preCopy: spec.preCopy };
    this.#spec = spec;
    this.#now = now;
    this.#accountedMs = now();
    this.#faults = makeFaults(spec.faults);
    this.#driven = spec.role === "boot";
    this.#memory = makeDeviceMemory(spec.seed, spec.stateBytes);
    this.dma = spec.dma === null ? null : openDmaWindow(spec.dma, spec.seed);
    this.config = makeConfigSpace(spec);
  }

  get logsDma(): boolean {
    return this.#spec.dma?.logged === true;
  }

  get state(): DeviceState {
    return this.#state;
  }

  /** What happened since somebody looked last. With a DMA window it is called every DMA_PERIOD_MS. */
  account(): void {
    const now = this.#now();
    const seconds = Math.max(0, now - this.#accountedMs) / 1000;
    this.#accountedMs = now;
    if (!this.#driven || !isRunning(this.#state)) return;
    this.#memory.change(seconds * this.#spec.dirtyBytesPerSecond);
    // It cannot tell DMA to other devices from DMA to memory, so in the P2P states it stops all, as the uAPI demands.
    const quiet = this.#state === "RUNNING_P2P" || this.#state === "PRE_COPY_P2P";
    if (!quiet) this.dma?.write(seconds * (this.#spec.dma?.bytesPerSecond ?? 0));
  }

  *setState(to: DeviceState): Operation<void> {
    const path = pathOf(this.#state, to, this.features);
    if (path._tag === "Refused") throw new DeviceFailure(path.errno, path.reason);
    for (const arc of path.arcs) yield* this.#walk(arc);
  }

  /** To RUNNING, with the content of a device that was just started. */
  *reset(): Operation<void> {
    yield* this.#meet("reset");
    this.account();
    this.#state = "RUNNING";
    this.#saving = null;
    this.#resuming = null;
    this.#driven = this.#spec.role === "boot";
    this.#memory = makeDeviceMemory(this.#spec.seed, this.#spec.stateBytes);
    this.dma?.load(new Uint32Array(this.dma.pages), this.#spec.seed);
    this.config.reset();
    this.#checkDue = false;
    this.#resets++;
  }

  /** How many bytes it gave; 0 at the end of a pass, or of the stream. */
  *read(into: Uint8Array): Operation<number> {
    yield* this.#meet("read");
    // Waits before it gives: whoever goes away while it waits has lost nothing.
    const waitMs = this.#readReadyMs - this.#now();
    if (waitMs >= 1) yield waitMs;
    if (this.#saving === null) throw new DeviceFailure("EINVAL", `there is no stream to read in ${this.#state}`);
    this.account();
    const bytes = this.#saving.fill(into);
    this.#bytesRead += bytes;
    const rate = this.#spec.readBytesPerSecond;
    if (rate > 0) this.#readReadyMs = Math.max(this.#readReadyMs, this.#now()) + (bytes / rate) * 1000;
    return bytes;
  }

  /** Takes all of the bytes. */
  *write(bytes: Uint8Array): Operation<void> {
    yield* this.#meet("write");
    if (this.#resuming === null) throw new DeviceFailure("EINVAL", `there is no stream to write in ${this.#state}`);
    this.#resuming.take(bytes);
    this.#bytesWritten += bytes.length;
    if (this.#allocated || !this.#resuming.hasInitialData()) return;
    this.#allocated = true;
    this.#allocations++;
    if (this.#spec.allocationMs > 0) yield this.#spec.allocationMs;
  }

  *precopyInfo(): Operation<PrecopyInfo> {
    yield* this.#meet("precopy-info");
    if (this.#saving === null || this.#state === "STOP_COPY") {
      throw new DeviceFailure("EINVAL", `there is no precopy info in ${this.#state}`);
    }
    this.account();
    return this.#saving.precopyInfo();
  }

  /** VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, bytes. */
  stopCopyBytes(): number {
    this.account();
    return this.#saving?.remainingBytes() ?? streamBytesOf(this.#memory.content(), this.dma?.pages ?? 0);
  }

  diagnosis(): SimulatedDiagnosis {
    this.account();
    return {
      ...this.#mark(),
      state: this.#state,
      saved: this.#saved,
      loaded: this.#loaded,
      configDigest: createHash("sha256").update(this.config.read()).digest("hex"),
      bytesRead: this.#bytesRead,
      bytesWritten: this.#bytesWritten,
      resets: this.#resets,
      allocations: this.#allocations,
      dma: this.dma?.diagnosis() ?? null,
    };
  }

  close(): void {
    this.dma?.close();
  }

  *#walk(arc: Arc): Operation<void> {
    const latencyMs = this.#spec.arcLatencyMs[arcName(arc)] ?? 0;
    if (latencyMs > 0) yield latencyMs;
    yield* this.#meet(arcName(arc));
    // Up to here the device has worked in the state that it leaves.
    this.account();
    if (arc.from === "RESUMING" && this.#resuming !== null) this.#load(this.#resuming);
    if (arc.stream !== "keeps") {
      this.#saving = arc.stream === "opens-saving" ? this.#openSaving() : null;
      this.#resuming = arc.stream === "opens-resuming" ? this.#openResuming() : null;
    }
    if (arc.to === "STOP_COPY") {
      this.#saving?.stop();
      this.#saved = this.#mark();
    }
    this.#state = arc.to;
    if (this.#checkDue && isRunning(arc.to)) {
      this.#checkDue = false;
      this.dma?.check();
    }
  }

  /** Comes to a place where something may go wrong. */
  *#meet(at: DeviceFault["at"]): Operation<void> {
    const kind = this.#faults.strike(at);
    if (kind === null) return;
    if (kind === "hang") {
      yield NEVER;
      throw new DeviceFailure("ETIMEDOUT", `a fault at ${at}: it never answers`);
    }
    if (kind !== "error-state") throw new DeviceFailure(kind, `a fault at ${at}`);
    this.account();
    this.#saving = null;
    this.#resuming = null;
    this.#state = "ERROR";
    throw new DeviceFailure("EIO", `a fault at ${at}: the device is in ERROR`);
  }

  #openSaving(): SavingStream {
    return openSavingStream({
      content: this.#memory.content(),
      initialBlocks: this.#initialBlocks(),
      preCopyData: this.#spec.preCopyData,
      sequence: ++this.#streams,
      contents: () => this.#memory.contents(this.dma?.counters() ?? ZERO_PAGES),
    });
  }

  #openResuming(): ResumingStream {
    this.#allocated = false;
    const { stateBytes, blockBytes } = this.#memory.content();
    const dmaPages = this.dma?.pages ?? 0;
    return openResumingStream({ stateBytes, blockBytes, initialBlocks: this.#initialBlocks(), dmaPages });
  }

  #load(stream: ResumingStream): void {
    const loaded = stream.finish();
    this.#memory.load(loaded);
    this.dma?.load(loaded.contents.dmaCounters, loaded.contents.seed);
    this.#driven = true;
    this.#checkDue = true;
    this.#loaded = this.#mark();
  }

  #initialBlocks(): number {
    return Math.ceil(this.#spec.initialBytes / this.#memory.content().blockBytes);
  }

  #mark(): StateMark {
    const contents = this.#memory.contents(this.dma?.counters() ?? ZERO_PAGES);
    return { digest: digestOf(contents).toString("hex"), generation: contents.changes };
  }
}
