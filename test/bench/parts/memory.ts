/** Whether memory use grows with the guest. */
import { startBuiltin } from "@godwit/guest";
import { PAGE_BYTES } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { type Actor, actorsOf } from "../actors.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { forgetPeak, peakBytes } from "../process-usage.ts";
import { openTestbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;
/** A quarter has a payload: 4 GiB then moves in seconds, and still through every buffer thousands of times. */
const MIX = { zero: 75, compressible: 0, random: 25 } as const;
/** Memory that may differ between the smallest and the largest guest, besides bitmaps. */
const FLAT_WITHIN = 0.1;
/** Of one bit for each page: what this round must send (RAM sender), what the tracker knows of its last sync. */
const BITMAPS_OF_SENDER = 2;
const BITS_PER_BYTE = 8;

interface Peak {
  readonly name: string;
  /** Of the largest of its processes. */
  readonly bytes: number;
}

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const sizes = (quick ? [64, 128] : [256, 1024, 4096]).map((size) => size * MIB);
  const measured: { readonly memoryBytes: number; readonly peaks: ReadonlyArray<Peak> }[] = [];
  for (const memoryBytes of sizes) {
    const peaks = yield* Effect.scoped(measure(memoryBytes));
    measured.push({ memoryBytes, peaks });
    progress(`${memoryBytes / MIB} MiB`);
  }
  const smallest = measured[0]!;
  const largest = measured.at(-1)!;
  const bitmapBytes = (memoryBytes: number): number => (memoryBytes / PAGE_BYTES / BITS_PER_BYTE) * BITMAPS_OF_SENDER;
  const moreBitmaps = bitmapBytes(largest.memoryBytes) - bitmapBytes(smallest.memoryBytes);
  const growth = (name: string): number => {
    const [from, to] = [smallest, largest].map(({ peaks }) => peaks.find((peak) => peak.name === name)!.bytes);
    return (to! - (name === "RAM sender" ? moreBitmaps : 0)) / from! - 1;
  };
  const names = smallest.peaks.map(({ name }) => name);
  const result: Result = {
    isComplete: true,
    notes: [
      `The most memory resident (VmHWM), MiB, while a builtin guest with ${MIX.zero}% zero and ${MIX.random}% random pages is moved over ${CHANNELS} channels; fresh processes for each size, the peak of their start forgotten.`,
      `The RAM sender's bitmaps are reckoned, not measured: ${BITMAPS_OF_SENDER} of one bit a page, ${(bitmapBytes(largest.memoryBytes) / MIB).toFixed(2)} MiB for the largest guest; its growth is without them.`,
      `Flat: within ${FLAT_WITHIN * 100}% from the smallest guest to the largest, or less.`,
    ],
    tables: [
      {
        titles: [
          "actor, MiB at most",
          ...sizes.map((size) => `guest of ${size / MIB} MiB`),
          "growth without bitmaps",
          "flat",
        ],
        rows: names.map((name) => [
          name,
          ...measured.map(({ peaks }) => (peaks.find((peak) => peak.name === name)!.bytes / MIB).toFixed(0)),
          `${(growth(name) * 100).toFixed(1)}%`,
          growth(name) <= FLAT_WITHIN ? "yes" : "no",
        ]),
      },
    ],
    figures: { mix: MIX, channels: CHANNELS, bitmapsOfSender: BITMAPS_OF_SENDER, measured },
  };
  return result;
});

const measure = Effect.fnUntraced(function* (memoryBytes: number) {
  const testbed = yield* openTestbed({ workers: CHANNELS });
  const guest = yield* startBuiltin({
    name: "memory",
    memoryBytes,
    dirtyRateBytesPerSecond: 0,
    mix: MIX,
    directory: `${testbed.memoryDirectory}/a`,
  });
  testbed.register("a", guest);
  const actors: ReadonlyArray<Actor> = actorsOf(testbed, "a", CHANNELS);
  for (const pid of actors.flatMap(({ pids }) => pids)) forgetPeak(pid);
  yield* testbed.move("memory", "b", { ...UNLIMITED, "multifd-channels": CHANNELS });
  return actors.map(({ name, pids }): Peak => ({ name, bytes: Math.max(...pids.map(peakBytes)) }));
});

export const memory: Part = { name: "memory", title: "Memory of each actor", run };
