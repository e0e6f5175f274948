/**
 * The stream that a device takes, in segments cut anywhere. What is taken lies aside until all of it is there and right: a device
 * that was given half a state has none of it.
 *
 *     header -> record head -> data -> record head -> ... -> trailer -> (no more)
 */
import { crc32 } from "node:zlib";
import { DeviceFailure } from "./failure.ts";
import { type Content, makeContent } from "./kernel/content.ts";
import {
  BLOCK_RECORD,
  bytesOf,
  type DeviceContents,
  decodeHeader,
  decodeRecordHead,
  decodeTrailer,
  digestOf,
  HEADER_BYTES,
  RECORD_HEAD_BYTES,
  type RecordHead,
  type StreamHeader,
  TRAILER,
  TRAILER_BYTES,
} from "./stream-format.ts";

/** The generation of a block that has not come yet. */
const NEVER = 0xffff_ffff;

/** What a device can take. */
export type Receiver = Pick<StreamHeader, "stateBytes" | "initialBlocks" | "blockBytes" | "dmaPages">;

export interface Loaded {
  readonly content: Content;
  readonly contents: DeviceContents;
}

export interface ResumingStream {
  /** Takes the bytes. Throws EIO for what is damaged, out of place or too much; nothing is taken from then on. */
  readonly take: (bytes: Uint8Array) => void;
  /** Whether header and all initial data have come. */
  readonly hasInitialData: () => boolean;
  /** What was taken. Throws EINVAL when that is not a whole state. */
  readonly finish: () => Loaded;
}

export const openResumingStream = (receiver: Receiver): ResumingStream => new BlockReceiver(receiver);

type Awaited = "header" | "head" | "data" | "trailer" | "nothing";

class BlockReceiver implements ResumingStream {
  readonly #receiver: Receiver;
  readonly #generations: Uint32Array;
  readonly #dmaCounters: Uint32Array;
  #awaited: Awaited = "header";
  /** The part of a header, head or trailer that has come. */
  readonly #collected = Buffer.alloc(Math.max(HEADER_BYTES, RECORD_HEAD_BYTES, TRAILER_BYTES));
  #collectedBytes = 0;
  #content: Content | null = null;
  #seed = 0;
  #head: RecordHead | null = null;
  /** What the data of the record must be; counters are taken as they come. */
  #expected: Buffer | null = null;
  #dataBytes = 0;
  #dataCrc32 = 0;
  #records = 0;
  #initialMissing: number;
  #changes = 0;
  #damage: DeviceFailure | null = null;

  constructor(receiver: Receiver) {
    this.#receiver = receiver;
    this.#generations = new Uint32Array(Math.ceil(receiver.stateBytes / receiver.blockBytes)).fill(NEVER);
    this.#dmaCounters = new Uint32Array(receiver.dmaPages);
    this.#initialMissing = receiver.initialBlocks;
  }

  take(bytes: Uint8Array): void {
    if (this.#damage !== null) throw this.#damage;
    try {
      let taken = 0;
      while (taken < bytes.length) taken += this.#takeSome(bytes.subarray(taken));
    } catch (cause) {
      if (cause instanceof DeviceFailure) this.#damage = cause;
      throw cause;
    }
  }

  hasInitialData(): boolean {
    return this.#content !== null && this.#initialMissing === 0;
  }

  finish(): Loaded {
    if (this.#damage !== null) throw new DeviceFailure("EINVAL", `a write was refused: ${this.#damage.message}`);
    if (this.#awaited !== "nothing" || this.#content === null) {
      const place = this.#awaited === "head" ? "the trailer" : `the whole ${this.#awaited}`;
      throw new DeviceFailure("EINVAL", `the stream ends before ${place}, after ${this.#records} records`);
    }
    return { content: this.#content, contents: this.#contents() };
  }

  /** Takes a first part of the bytes; how many. */
  #takeSome(bytes: Uint8Array): number {
    switch (this.#awaited) {
      case "header":
        return this.#collect(bytes, HEADER_BYTES, (all) => this.#begin(decodeHeader(all)));
      case "head":
        return this.#collect(bytes, RECORD_HEAD_BYTES, (all) => {
          // A trailer is longer: its first part is kept.
          if (all.readUInt32LE(0) === TRAILER) this.#awaited = "trailer";
          else this.#beginRecord(decodeRecordHead(all));
        });
      case "data":
        return this.#takeData(bytes);
      case "trailer":
        return this.#collect(bytes, TRAILER_BYTES, (all) => this.#end(all));
      case "nothing":
        throw new DeviceFailure("EIO", `${bytes.length} bytes behind the end of the stream`);
    }
  }

  #collect(bytes: Uint8Array, wanted: number, whole: (bytes: Buffer) => void): number {
    const part = bytes.subarray(0, wanted - this.#collectedBytes);
    this.#collected.set(part, this.#collectedBytes);
    this.#collectedBytes += part.length;
    if (this.#collectedBytes < wanted) return part.length;
    whole(this.#collected.subarray(0, wanted));
    if (this.#awaited !== "trailer") this.#collectedBytes = 0;
    return part.length;
  }

  #begin(header: StreamHeader): void {
    const receiver = this.#receiver;
    for (const what of ["stateBytes", "blockBytes", "initialBlocks", "dmaPages"] as const) {
      if (header[what] !== receiver[what]) {
        throw new DeviceFailure("EIO", `${what} of the stream is ${header[what]}, of this device ${receiver[what]}`);
      }
    }
    this.#seed = header.seed;
    this.#content = makeContent(header.seed, header.stateBytes);
    this.#awaited = "head";
  }

  #beginRecord(head: RecordHead): void {
    if (head.sequence !== this.#records) {
      throw new DeviceFailure("EIO", `record ${head.sequence} where ${this.#records} was to come`);
    }
    const known = head.kind !== BLOCK_RECORD || head.block < this.#generations.length;
    const expected = known && head.kind === BLOCK_RECORD ? this.#content!.block(head.block, head.generation) : null;
    const dataBytes = expected?.length ?? this.#dmaCounters.byteLength;
    if (!known || head.dataBytes !== dataBytes || dataBytes === 0) {
      throw new DeviceFailure("EIO", `record ${head.sequence}: no block ${head.block} of ${head.dataBytes} bytes`);
    }
    this.#head = head;
    this.#expected = expected;
    this.#dataBytes = 0;
    this.#dataCrc32 = 0;
    this.#awaited = "data";
  }

  #takeData(bytes: Uint8Array): number {
    const head = this.#head!;
    const start = this.#dataBytes;
    const part = bytes.subarray(0, head.dataBytes - start);
    const end = start + part.length;
    // Nothing of a block is stored, since its bytes follow from its generation; so they must be just these.
    if (this.#expected === null) bytesOf(this.#dmaCounters).set(part, start);
    else if (this.#expected.compare(part, 0, part.length, start, end) !== 0) {
      throw new DeviceFailure("EIO", `record ${head.sequence}: block ${head.block} is damaged`);
    }
    this.#dataCrc32 = crc32(part, this.#dataCrc32);
    this.#dataBytes = end;
    if (end === head.dataBytes) this.#endRecord(head);
    return part.length;
  }

  #endRecord(head: RecordHead): void {
    if (this.#dataCrc32 !== head.dataCrc32) {
      throw new DeviceFailure("EIO", `record ${head.sequence} is damaged: its crc32 does not match`);
    }
    if (head.kind === BLOCK_RECORD) {
      if (this.#generations[head.block] === NEVER && head.block < this.#receiver.initialBlocks) this.#initialMissing--;
      this.#generations[head.block] = head.generation;
    }
    this.#records++;
    this.#awaited = "head";
  }

  #end(bytes: Buffer): void {
    const trailer = decodeTrailer(bytes);
    this.#changes = trailer.changes;
    if (trailer.records !== this.#records) {
      throw new DeviceFailure("EIO", `${this.#records} records came, ${trailer.records} were given`);
    }
    if (!digestOf(this.#contents()).equals(trailer.digest)) {
      throw new DeviceFailure("EIO", "the state that came is not the one that was given: its digest differs");
    }
    this.#awaited = "nothing";
  }

  #contents(): DeviceContents {
    return {
      seed: this.#seed,
      stateBytes: this.#receiver.stateBytes,
      changes: this.#changes,
      generations: this.#generations,
      dmaCounters: this.#dmaCounters,
    };
  }
}
