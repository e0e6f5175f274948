/**
 * What the device writes into guest memory by itself. Each page of its window has a counter; a page that was written holds its
 * number, its counter, and bytes that follow from both. So a page that came too early to its destination, or not at all, shows.
 */
import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { errnoOf, HostError } from "@godwit/host";
import { DMA_PAGE_BYTES, type DmaLog, makeDmaLog } from "./dma-log.ts";
import { makePattern, scatter } from "./kernel/content.ts";
import { strideOf } from "./kernel/walk.ts";
import type { DmaSpec } from "./spec.ts";

/** "GWDM" */
const PAGE_MAGIC = 0x4d445747;
/** Enough that two pages seldom look alike. */
const PATTERN_BYTES = 2 ** 20;
/** Stale pages that a diagnosis names: enough to see whether they lie together. */
const STALE_SHOWN_MAX = 8;

export interface DmaDiagnosis {
  /** Pages written since the device was started, each as often as it was written. */
  readonly pagesWritten: number;
  /** Pages that the RAM file refused to take or to give. */
  readonly pagesRefused: number;
  /** Why, for the last of them: name of the errno; null while there is none. */
  readonly refusal: string | null;
  /** Pages that did not hold what they must when the device first ran with the state it was given; null before. */
  readonly stalePages: number | null;
  /** The first of them, by their number in the window. */
  readonly staleShown: ReadonlyArray<number>;
}

export interface DmaWindow {
  readonly pages: number;
  /** By page: how often it was written. */
  readonly counters: () => Uint32Array;
  /** Goes on with the counters of another device; those of a device with this seed. */
  readonly load: (counters: Uint32Array, seed: number) => void;
  /** The pages of so many bytes are due; writes them. What is more than the window is dropped: a host that slept has lost it. */
  readonly write: (bytes: number) => void;
  /** Compares all pages that were ever written with what they must hold, and counts those that differ. */
  readonly check: () => void;
  readonly log: DmaLog;
  readonly diagnosis: () => DmaDiagnosis;
  readonly close: () => void;
}

export const openDmaWindow = (spec: DmaSpec, seed: number): DmaWindow => new FileWindow(spec, seed);

class FileWindow implements DmaWindow {
  readonly pages: number;
  readonly log: DmaLog;
  readonly #spec: DmaSpec;
  readonly #stride: number;
  readonly #page = Buffer.alloc(DMA_PAGE_BYTES);
  #counters: Uint32Array;
  #seed: number;
  #pattern: Buffer;
  #fd: number | null = null;
  #walked = 0;
  /** Bytes due that make no page yet. */
  #owed = 0;
  #written = 0;
  #refused = 0;
  #refusal: string | null = null;
  #stale: ReadonlyArray<number> | null = null;

  constructor(spec: DmaSpec, seed: number) {
    this.#spec = spec;
    this.pages = spec.lengthBytes / DMA_PAGE_BYTES;
    this.log = makeDmaLog(spec.iova ?? spec.offsetBytes, this.pages);
    this.#stride = strideOf(this.pages);
    this.#counters = new Uint32Array(this.pages);
    this.#seed = seed;
    this.#pattern = makePattern(seed, PATTERN_BYTES);
  }

  counters(): Uint32Array {
    return this.#counters;
  }

  load(counters: Uint32Array, seed: number): void {
    this.#counters = counters.slice();
    this.#seed = seed;
    this.#pattern = makePattern(seed, PATTERN_BYTES);
    this.#walked = counters.reduce((sum, counter) => sum + counter, 0);
    this.#stale = null;
  }

  write(bytes: number): void {
    this.#owed = Math.min(this.#owed + bytes, this.#spec.lengthBytes);
    for (; this.#owed >= DMA_PAGE_BYTES; this.#owed -= DMA_PAGE_BYTES) {
      const page = ((this.#walked % this.pages) * this.#stride) % this.pages;
      const counter = this.#counters[page]! + 1;
      const content = this.#contentOf(page, counter);
      // A page that could not be written keeps its counter, and is not dirty.
      if (!this.#onFile((fd) => writeSync(fd, content, 0, DMA_PAGE_BYTES, this.#positionOf(page)))) return;
      this.#counters[page] = counter;
      this.#walked++;
      this.#written++;
      this.log.note(page);
    }
  }

  check(): void {
    const found = Buffer.alloc(DMA_PAGE_BYTES);
    const stale: Array<number> = [];
    for (let page = 0; page < this.pages; page++) {
      const counter = this.#counters[page]!;
      if (counter === 0) continue;
      const read = this.#onFile((fd) => readSync(fd, found, 0, DMA_PAGE_BYTES, this.#positionOf(page)));
      if (!read || !found.equals(this.#contentOf(page, counter))) stale.push(page);
    }
    this.#stale = stale;
  }

  diagnosis(): DmaDiagnosis {
    return {
      pagesWritten: this.#written,
      pagesRefused: this.#refused,
      refusal: this.#refusal,
      stalePages: this.#stale?.length ?? null,
      staleShown: this.#stale?.slice(0, STALE_SHOWN_MAX) ?? [],
    };
  }

  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #positionOf(page: number): number {
    return this.#spec.offsetBytes + page * DMA_PAGE_BYTES;
  }

  /** What a page holds that was written so often. Valid until the next call. */
  #contentOf(page: number, counter: number): Buffer {
    const start = scatter(this.#seed, page, counter) % (PATTERN_BYTES - DMA_PAGE_BYTES);
    this.#pattern.copy(this.#page, 0, start, start + DMA_PAGE_BYTES);
    this.#page.writeUInt32LE(PAGE_MAGIC, 0);
    this.#page.writeUInt32LE(page, 4);
    this.#page.writeUInt32LE(counter, 8);
    this.#page.writeUInt32LE(this.#seed, 12);
    return this.#page;
  }

  /** Whether the RAM file took, or gave, a whole page. It is opened again and again: a guest may come after its device. */
  #onFile(access: (fd: number) => number): boolean {
    try {
      this.#fd ??= this.#open();
      if (access(this.#fd) === DMA_PAGE_BYTES) return true;
      this.#refusal = "EOVERFLOW";
    } catch (cause) {
      this.#refusal = errnoOf(cause);
    }
    this.#refused++;
    return false;
  }

  /** Fails with EOVERFLOW for a file that ends before the window does: a write would make a guest's RAM longer. */
  #open(): number {
    const { path, offsetBytes, lengthBytes } = this.#spec;
    const fd = openSync(path, "r+");
    if (fstatSync(fd).size >= offsetBytes + lengthBytes) return fd;
    closeSync(fd);
    throw new HostError("open", "EOVERFLOW", { path });
  }
}
