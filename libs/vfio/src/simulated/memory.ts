/** What a device holds, and how it changes: by elapsed time, when somebody looks. */
import { type Content, makeContent } from "./kernel/content.ts";
import { strideOf, walkOn } from "./kernel/walk.ts";
import type { Loaded } from "./resuming-stream.ts";
import type { DeviceContents } from "./stream-format.ts";

export interface DeviceMemory {
  readonly content: () => Content;
  /** How often a block changed since the device began; moves with the state. */
  readonly changes: () => number;
  /** The tables are the memory's own, until the next `load`. */
  readonly contents: (dmaCounters: Uint32Array) => DeviceContents;
  /** So many bytes changed. More than a whole round of the memory at once counts as it is, in no more time. */
  readonly change: (bytes: number) => void;
  readonly load: (loaded: Loaded) => void;
}

export const makeDeviceMemory = (initialSeed: number, stateBytes: number): DeviceMemory => {
  let seed = initialSeed;
  let content = makeContent(seed, stateBytes);
  let generations = new Uint32Array(content.blockCount);
  let changes = 0;
  /** Bytes due that make no block yet. */
  let owed = 0;
  const stride = strideOf(content.blockCount);
  return {
    content: () => content,
    changes: () => changes,
    contents: (dmaCounters) => ({ seed, stateBytes, changes, generations, dmaCounters }),
    change: (bytes) => {
      owed += bytes;
      const blocks = Math.floor(owed / content.blockBytes);
      owed -= blocks * content.blockBytes;
      walkOn(generations, stride, changes, blocks);
      changes += blocks;
    },
    load: (loaded) => {
      seed = loaded.contents.seed;
      content = loaded.content;
      generations = loaded.contents.generations.slice();
      changes = loaded.contents.changes;
      owed = 0;
    },
  };
};
