/** What each codec, and the choice between them, makes of three kinds of memory, over a lane that is short and over one that is not. */
import * as Effect from "effect/Effect";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median } from "../samples.ts";
import { carriersOf, openShuttle } from "../shuttle.ts";
import { openTestbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;
const CODECS = ["none", "zlib", "zstd", "auto"] as const;
/** Percent of a guest's pages. With zstd a compressible page of a builtin guest becomes a good quarter of itself; so the second image is 3:1. */
const IMAGES = [
  { name: "mostly zero", mix: { zero: 90, compressible: 5, random: 5 } },
  { name: "3:1", mix: { zero: 0, compressible: 91, random: 9 } },
  { name: "random", mix: { zero: 0, compressible: 0, random: 100 } },
] as const;
/** 1 Gbit/s, as `max-bandwidth`. */
const SHORT = { "max-bandwidth": 125_000_000 } as const;
const LANES = [
  { name: "1 Gbit/s", parameters: SHORT },
  { name: "unlimited", parameters: UNLIMITED },
] as const;

interface Sample {
  readonly totalMs: number;
  readonly wireBytes: number;
  /** Of workers and loader, s for each GiB of guest memory. */
  readonly cpu: number;
}

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 64 : 512) * MIB;
  const repetitions = quick ? 1 : 3;
  const testbed = yield* openTestbed({ workers: CHANNELS });

  const rows: string[][] = [];
  const figures: unknown[] = [];
  for (const [index, image] of IMAGES.entries()) {
    const { name, mix } = image;
    const shuttle = yield* openShuttle(testbed, { name: `image${index}`, memoryBytes, mix, workers: CHANNELS });
    for (const lane of LANES) {
      const samples = new Map<string, Sample[]>(CODECS.map((codec) => [codec, []]));
      // The first turn warms everybody up, and is not counted.
      for (let turn = 0; turn <= repetitions; turn++) {
        for (const codec of CODECS) {
          const parameters = { ...lane.parameters, "multifd-channels": CHANNELS, "multifd-compression": codec };
          const moved = yield* shuttle.move(parameters);
          const { "total-time": totalMs, ram } = moved.info;
          const cpu = (carriersOf(moved) * 1024 ** 3) / memoryBytes;
          if (turn > 0) samples.get(codec)!.push({ totalMs, wireBytes: ram?.transferred ?? Number.NaN, cpu });
        }
      }
      const medians = CODECS.map((codec) => {
        const all = samples.get(codec)!;
        return {
          totalMs: median(all.map(({ totalMs }) => totalMs)),
          wireBytes: median(all.map(({ wireBytes }) => wireBytes)),
          cpu: median(all.map(({ cpu }) => cpu)),
        };
      });
      progress(`${name}, ${lane.name}: ${medians.map(({ totalMs }) => totalMs.toFixed(0)).join(", ")} ms`);
      figures.push({ image: name, lane: lane.name, codecs: CODECS, medians });
      rows.push([
        name,
        lane.name,
        ...medians.map(
          ({ totalMs, wireBytes, cpu }) =>
            `${totalMs.toFixed(0)} ms, ${(wireBytes / MIB).toFixed(0)} MiB, ${cpu.toFixed(2)}`,
        ),
      ]);
    }
  }
  const result: Result = {
    isComplete: true,
    notes: [
      `A builtin guest of ${memoryBytes / MIB} MiB that writes nothing, two channels, lane nats, max-bandwidth as named; medians of ${repetitions} turns of all codecs. In each cell: total time, bytes on the wire, and CPU seconds of workers and loader for each GiB of guest memory.`,
      "auto tries none and zstd for a while each, and keeps what acknowledges more page bytes in a second.",
    ],
    tables: [{ titles: ["memory", "bandwidth", ...CODECS], rows }],
    figures: { memoryBytes, channels: CHANNELS, figures },
  };
  return result;
});

export const compression: Part = { name: "compression", title: "Compression of three kinds of memory", run };
