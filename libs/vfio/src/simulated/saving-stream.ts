/**
 * The stream that a device gives, from the first state with a stream to the last.
 *
 *     PRE_COPY      header, all blocks in order, then those that have changed since they were given, until there is none
 *     STOP_COPY     the same, from where it stands; then the DMA counters and the trailer
 *
 * Nothing is copied aside: a block that changes while it is being read is given to the end as it was, and once more later.
 */
import { crc32 } from "node:zlib";
import type { PrecopyInfo } from "../device.ts";
import type { Content } from "./kernel/content.ts";
import {
  BLOCK_RECORD,
  bytesOf,
  COUNTERS_RECORD,
  type DeviceContents,
  digestOf,
  encodeHeader,
  encodeRecordHead,
  encodeTrailer,
  HEADER_BYTES,
  RECORD_HEAD_BYTES,
  type RecordHead,
  TRAILER_BYTES,
} from "./stream-format.ts";

/** The generation of a block that was not given yet. */
const NEVER = 0xffff_ffff;

export interface SavingStream {
  /** Gives the next bytes; how many. 0: there is nothing, for now in PRE_COPY, for good in STOP_COPY. */
  readonly fill: (into: Uint8Array) => number;
  /** The device was stopped: from now on there is an end. */
  readonly stop: () => void;
  /** Before `stop`. What is not given yet and not initial counts as dirty, so that both are 0 when there is nothing. */
  readonly precopyInfo: () => PrecopyInfo;
  /** What the stream would still have if the device were stopped now, bytes. */
  readonly remainingBytes: () => number;
}

export interface SavingOptions {
  readonly content: Content;
  readonly initialBlocks: number;
  /** Which blocks there are before the stop. */
  readonly preCopyData: "all" | "initial";
  readonly sequence: number;
  /** As the device stands at this moment; its tables go on changing. */
  readonly contents: () => DeviceContents;
}

export const openSavingStream = (options: SavingOptions): SavingStream => new BlockStream(options);

class BlockStream implements SavingStream {
  readonly #options: SavingOptions;
  /** The device's own tables, which change while it runs. */
  readonly #generations: Uint32Array;
  readonly #dmaCounters: Uint32Array;
  /** By block, the generation that was given. */
  readonly #given: Uint32Array;
  /** Blocks that are in turn before the stop: these first ones. */
  readonly #offeredBlocks: number;
  #stopped = false;
  #ended = false;
  /** The block behind the last one given: so that all come in turn. */
  #cursor = 0;
  #records = 0;
  /** What is being given: a head, then its data; `#piece` of them, from `#position` on. */
  #pieces: ReadonlyArray<Buffer>;
  #piece = 0;
  #position = 0;
  /** Whether that is header or initial data, and given for the first time. */
  #initial = true;

  constructor(options: SavingOptions) {
    const { content, initialBlocks, sequence } = options;
    const { seed, generations, dmaCounters } = options.contents();
    this.#options = options;
    this.#generations = generations;
    this.#dmaCounters = dmaCounters;
    this.#given = new Uint32Array(content.blockCount).fill(NEVER);
    this.#offeredBlocks = options.preCopyData === "all" ? content.blockCount : initialBlocks;
    const { stateBytes, blockBytes } = content;
    const dmaPages = dmaCounters.length;
    this.#pieces = [encodeHeader({ stateBytes, blockBytes, initialBlocks, seed, sequence, dmaPages })];
  }

  fill(into: Uint8Array): number {
    let filled = 0;
    while (filled < into.length) {
      const source = this.#pieces[this.#piece];
      if (source === undefined) {
        if (!this.#advance()) break;
        continue;
      }
      const bytes = Math.min(source.length - this.#position, into.length - filled);
      source.copy(into, filled, this.#position, this.#position + bytes);
      filled += bytes;
      this.#position += bytes;
      if (this.#position === source.length) {
        this.#piece++;
        this.#position = 0;
      }
    }
    return filled;
  }

  stop(): void {
    this.#stopped = true;
  }

  precopyInfo(): PrecopyInfo {
    const open = this.#openBytes();
    let initialBytes = this.#initial ? open : 0;
    let dirtyBytes = open - initialBytes;
    for (let block = 0; block < this.#offeredBlocks; block++) {
      if (this.#isInitial(block)) initialBytes += this.#recordBytes(block);
      else if (this.#isStale(block)) dirtyBytes += this.#recordBytes(block);
    }
    return { initialBytes, dirtyBytes };
  }

  remainingBytes(): number {
    let bytes = this.#openBytes();
    if (this.#ended) return bytes;
    const { blockCount } = this.#options.content;
    for (let block = 0; block < blockCount; block++) if (this.#isStale(block)) bytes += this.#recordBytes(block);
    return bytes + tailBytes(this.#dmaCounters.length);
  }

  /** Takes up the next pieces. False: there is nothing more, for now or for good. */
  #advance(): boolean {
    this.#piece = 0;
    this.#position = 0;
    this.#initial = false;
    const block = this.#ended ? -1 : this.#nextBlock();
    if (block >= 0) {
      const generation = this.#generations[block]!;
      this.#initial = this.#isInitial(block);
      this.#given[block] = generation;
      this.#cursor = block + 1;
      this.#pieces = this.#record(BLOCK_RECORD, this.#options.content.block(block, generation), block, generation);
    } else if (this.#stopped && !this.#ended) {
      this.#ended = true;
      this.#pieces = this.#tail();
    } else {
      this.#pieces = [];
    }
    return this.#pieces.length > 0;
  }

  /** The next block to give, -1 if there is none. */
  #nextBlock(): number {
    const end = this.#stopped ? this.#options.content.blockCount : this.#offeredBlocks;
    for (let block = this.#cursor; block < end; block++) if (this.#isStale(block)) return block;
    for (let block = 0; block < this.#cursor; block++) if (this.#isStale(block)) return block;
    return -1;
  }

  #isStale(block: number): boolean {
    return this.#given[block] !== this.#generations[block];
  }

  #isInitial(block: number): boolean {
    return block < this.#options.initialBlocks && this.#given[block] === NEVER;
  }

  #tail(): ReadonlyArray<Buffer> {
    const counters = bytesOf(this.#dmaCounters);
    const records = counters.length === 0 ? [] : this.#record(COUNTERS_RECORD, counters, 0, 0);
    const state = this.#options.contents();
    return [...records, encodeTrailer({ records: this.#records, changes: state.changes, digest: digestOf(state) })];
  }

  #record(kind: RecordHead["kind"], data: Buffer, block: number, generation: number): ReadonlyArray<Buffer> {
    const sequence = this.#records++;
    const dataBytes = data.length;
    return [encodeRecordHead({ kind, sequence, block, generation, dataBytes, dataCrc32: crc32(data) }), data];
  }

  /** What was taken up and is not given yet. */
  #openBytes(): number {
    let bytes = 0;
    for (let i = this.#piece; i < this.#pieces.length; i++) bytes += this.#pieces[i]!.length;
    return bytes - this.#position;
  }

  #recordBytes(block: number): number {
    const { blockBytes, stateBytes } = this.#options.content;
    return RECORD_HEAD_BYTES + Math.min(blockBytes, stateBytes - block * blockBytes);
  }
}

/** Counters, if there are any, and the trailer. */
const tailBytes = (dmaPages: number): number =>
  TRAILER_BYTES + (dmaPages === 0 ? 0 : RECORD_HEAD_BYTES + dmaPages * Uint32Array.BYTES_PER_ELEMENT);

/** A whole stream of a device that does not change, bytes. */
export const streamBytesOf = (content: Content, dmaPages: number): number =>
  HEADER_BYTES + content.stateBytes + content.blockCount * RECORD_HEAD_BYTES + tailBytes(dmaPages);
