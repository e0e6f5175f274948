/** What deltas of pages that are dirtied again save, for a guest that writes a few bytes of each page again and again, over a short lane. */
import { startBuiltin } from "@godwit/guest";
import type { MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { claimFreeMemory } from "../free-memory.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median } from "../samples.ts";
import { type NodeName, openTestbed, otherNode, UNCOMPARED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;
/** 1 Gbit/s, as `max-bandwidth`. */
const SHORT = { "max-bandwidth": 125_000_000 } as const;
/** Each write changes four words of a page; nothing else makes it smaller. */
const MIX = { zero: 0, compressible: 0, random: 0, counted: 100 } as const;
const CODECS = ["none", "zstd"] as const;
/** Nearly as fast as the lane: whole pages converge slowly. */
const WORKING_SET_MIB = 96;
const DIRTY_MIB_PER_SECOND = 100;
/** Room for all of the working set. */
const CACHE_MIB = 128;

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 128 : 512) * MIB;
  const repetitions = quick ? 1 : 3;
  const testbed = yield* openTestbed({ workers: CHANNELS });
  const name = "counting";
  testbed.register(
    "a",
    yield* startBuiltin({
      name,
      memoryBytes,
      mix: MIX,
      workingSetBytes: WORKING_SET_MIB * MIB,
      dirtyRateBytesPerSecond: DIRTY_MIB_PER_SECOND * MIB,
      directory: `${testbed.memoryDirectory}/a`,
    }),
  );
  let at: NodeName = "a";
  const move = (codec: (typeof CODECS)[number], xbzrle: boolean) =>
    Effect.suspend(() => {
      at = otherNode(at);
      claimFreeMemory(testbed.memoryDirectory, memoryBytes);
      const parameters = {
        ...SHORT,
        "multifd-channels": CHANNELS,
        "multifd-compression": codec,
        "xbzrle-cache-size": CACHE_MIB * MIB,
      };
      return testbed.move(name, at, parameters, undefined, "verified", { ...UNCOMPARED, xbzrle });
    });

  const rows: string[][] = [];
  const figures: unknown[] = [];
  const ways = CODECS.flatMap((codec) =>
    [false, true].map((xbzrle) => ({ codec, xbzrle, samples: [] as MigrationInfo[] })),
  );
  // The first turn warms everybody up, and is not counted.
  for (let turn = 0; turn <= repetitions; turn++) {
    for (const { codec, xbzrle, samples } of ways) {
      const info = yield* move(codec, xbzrle);
      progress(`${codec}, xbzrle ${xbzrle ? "on" : "off"}: ${info["total-time"]} ms, ${info.ram?.transferred} bytes`);
      if (turn > 0) samples.push(info);
    }
  }
  for (const { codec, xbzrle, samples } of ways) {
    const of = (value: (info: MigrationInfo) => number | undefined): number =>
      median(samples.map((info) => value(info) ?? Number.NaN));
    const figure = {
      codec,
      xbzrle,
      totalMs: of((info) => info["total-time"]),
      downtimeMs: of((info) => info.downtime),
      rounds: of(({ ram }) => ram?.["dirty-sync-count"]),
      pages: of(({ ram }) => ram?.normal),
      wireBytes: of(({ ram }) => ram?.transferred),
      deltas: xbzrle ? of((info) => info["xbzrle-cache"]?.pages) : 0,
      deltaBytes: xbzrle ? of((info) => info["xbzrle-cache"]?.bytes) : 0,
      missRate: xbzrle ? of((info) => info["xbzrle-cache"]?.["cache-miss-rate"]) : Number.NaN,
    };
    figures.push(figure);
    rows.push([
      codec,
      xbzrle ? "on" : "off",
      figure.totalMs.toFixed(0),
      figure.downtimeMs.toFixed(0),
      figure.rounds.toFixed(0),
      figure.pages.toFixed(0),
      (figure.wireBytes / MIB).toFixed(0),
      xbzrle ? figure.deltas.toFixed(0) : "",
      figure.deltas > 0 ? (figure.deltaBytes / figure.deltas).toFixed(0) : "",
      xbzrle ? figure.missRate.toFixed(2) : "",
    ]);
  }
  const result: Result = {
    isComplete: true,
    notes: [
      `A builtin guest of ${memoryBytes / MIB} MiB that changes four words of each page of ${WORKING_SET_MIB} MiB in turn, ${DIRTY_MIB_PER_SECOND} MiB/s of pages; two channels, lane nats, max-bandwidth 1 Gbit/s, xbzrle-cache-size ${CACHE_MIB} MiB; medians of ${repetitions} turns of all ways. After each move the guest has found all its pages right.`,
      "Pages are those that were sent, in whatever form; bytes of a delta with the eight that a packet says of it, before compression.",
    ],
    tables: [
      {
        titles: [
          "compression",
          "xbzrle",
          "total time, ms",
          "downtime, ms",
          "rounds",
          "pages",
          "MiB on the wire",
          "deltas",
          "bytes of each",
          "cache-miss-rate",
        ],
        rows,
      },
    ],
    figures: { memoryBytes, channels: CHANNELS, figures },
  };
  return result;
});

export const xbzrle: Part = { name: "xbzrle", title: "Pages that are dirtied again", run };
