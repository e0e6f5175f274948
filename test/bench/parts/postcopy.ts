/** How long a guest waits for a page that it touches, and what a postcopy takes as a whole. */
import { startPostcopy } from "@godwit/cli/client";
import { Fabric } from "@godwit/fabric";
import { startBuiltin } from "@godwit/guest";
import { type MigrationInfo, PAGE_BYTES } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { HUGE_BYTES, hugePagesObstacle, mountHugePages, reserveHugePages } from "../../huge-pages.ts";
import { roundTrips } from "../bare/round-trip.ts";
import { claimFreeMemory } from "../free-memory.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { NODES, type NodeName, openTestbed, otherNode, type Testbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;
const WORKERS = CHANNELS + 1;
const ROUND_TRIPS = 1000;

/** Huge pages for so many copies of the guest: actors keep the files of a copy open for a while after it has gone. */
const HUGE_PAGES_FACTOR = 16;

/** Ways of moving the guest. */
const WAYS = {
  "urgent channel, bulk at full rate": { preempt: true, prefetch: "off", bulk: 0 },
  "no urgent channel, bulk at full rate": { preempt: false, prefetch: "off", bulk: 0 },
  "urgent channel, bulk of 8 MiB/s": { preempt: true, prefetch: "off", bulk: 8 * MIB },
  "urgent channel, bulk of 64 MiB/s, prefetch on": { preempt: true, prefetch: "on", bulk: 64 * MIB },
  "urgent channel, bulk of 64 MiB/s, prefetch off": { preempt: true, prefetch: "off", bulk: 64 * MIB },
} as const;
type Way = keyof typeof WAYS;
const ways = Object.keys(WAYS) as ReadonlyArray<Way>;
const [WITH_URGENT, WITHOUT_URGENT, ALONE] = ways as [Way, Way, Way];

interface Sample {
  readonly info: MigrationInfo;
  /** One round trip of plain nats.js just before, ms. */
  readonly roundTrip: number;
}
interface Samples {
  readonly hostPage: string;
  readonly moves: ReadonlyMap<Way, Sample[]>;
  /** The same guest, moved by precopy: one each turn. */
  readonly precopies: MigrationInfo[];
}

/** A guest in host pages of this size that goes to and fro. */
const measureGuest = Effect.fnUntraced(function* (
  testbed: Testbed,
  { quick, progress }: BenchOptions,
  { hostPageBytes, only }: { readonly hostPageBytes: number; readonly only: ReadonlyArray<Way> },
) {
  const hostPage = hostPageBytes === HUGE_BYTES ? "2 MiB" : "4 KiB";
  const memoryBytes = memoryOf(quick);
  const name = `postcopy-${hostPageBytes}`;
  const guest = yield* startBuiltin({
    name,
    memoryBytes,
    hostPageBytes,
    workingSetBytes: memoryBytes,
    dirtyRateBytesPerSecond: 24 * MIB,
    mix: { zero: 0, compressible: 0, random: 100 },
    directory: `${testbed.memoryDirectory}/a`,
  });
  testbed.register("a", guest);
  let at: NodeName = "a";

  const move = (parameters: Readonly<Record<string, unknown>>, capabilities: Readonly<Record<string, boolean>>) =>
    Effect.gen(function* () {
      const to = otherNode(at);
      claimFreeMemory(testbed.memoryDirectory, memoryBytes);
      let begun = false;
      const isPostcopy = capabilities["postcopy-ram"] === true;
      const info = yield* testbed.move(
        name,
        to,
        { ...UNLIMITED, "multifd-channels": CHANNELS, ...parameters },
        ({ migration, status }) => {
          // At the first pass: nothing is there when the guest begins.
          if (!isPostcopy || begun || (status !== "setup" && status !== "active")) return;
          begun = true;
          Effect.runFork(
            startPostcopy({ migration }).pipe(Effect.provideService(Fabric, testbed.fabric), Effect.ignore),
          );
        },
        "verified",
        capabilities,
      );
      at = to;
      return info;
    });
  const postcopy = (way: Way) =>
    Effect.gen(function* () {
      const { preempt, prefetch, bulk } = WAYS[way];
      const [roundTrip] = [median(yield* Effect.scoped(roundTrips(testbed.cluster.url, quick ? 100 : ROUND_TRIPS)))];
      const info = yield* move(
        {
          "downtime-limit": 0,
          "postcopy-after-rounds": 1,
          "postcopy-prefetch": prefetch,
          "max-postcopy-bandwidth": bulk,
        },
        { "postcopy-ram": true, "postcopy-preempt": preempt },
      );
      const { p50, p99 } = info["postcopy-latency"]!;
      progress(
        `${hostPage}, ${way}: ${info["postcopy-requests"]} faults, p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms; round trip ${roundTrip.toFixed(2)} ms`,
      );
      return { info, roundTrip } satisfies Sample;
    });

  const moves = new Map<Way, Sample[]>(only.map((way) => [way, []]));
  const precopies: MigrationInfo[] = [];
  // The first turn warms everybody up, and is not counted.
  for (let turn = 0; turn <= repetitionsOf(quick); turn++) {
    const precopy = yield* move({ "downtime-limit": 1000 }, {});
    if (turn > 0) precopies.push(precopy);
    for (const way of only) {
      const sample = yield* postcopy(way);
      if (turn > 0) moves.get(way)!.push(sample);
    }
  }
  return { hostPage, moves, precopies } satisfies Samples;
});

const memoryOf = (quick: boolean): number => (quick ? 64 : 128) * MIB;
const repetitionsOf = (quick: boolean): number => (quick ? 1 : 3);

const latency =
  (at: "p50" | "p99" | "max") =>
  ({ info }: Sample): number =>
    info["postcopy-latency"]![at];
const spread = ({ moves }: Samples, way: Way, what: (sample: Sample, turn: number) => number) =>
  spreadOf(moves.get(way)!.map(what));

const rowsOf = (samples: Samples): ReadonlyArray<ReadonlyArray<string>> =>
  [...samples.moves.keys()].map((way) => {
    const of = (what: (sample: Sample, turn: number) => number) => spread(samples, way, what);
    return [
      samples.hostPage,
      way,
      of(({ info }) => info["postcopy-requests"]!).median.toFixed(0),
      of(latency("p50")).median.toFixed(2),
      of(latency("p99")).median.toFixed(2),
      of(latency("max")).median.toFixed(1),
      of(({ info }) => median(info["postcopy-vcpu-blocktime"] ?? [0])).median.toFixed(0),
      of(({ info }) => info["total-time"]).median.toFixed(0),
      showSpread(
        of(({ info }, turn) => info["total-time"] / samples.precopies[turn]!["total-time"]),
        2,
      ),
    ];
  });

/** Without the urgent channel over with it. */
const offOverOn = (samples: Samples, at: "p50" | "p99"): ReadonlyArray<string> => {
  const beside = samples.moves.get(WITHOUT_URGENT)!;
  return [
    `fault ${at} in pages of ${samples.hostPage}, without over with the urgent channel`,
    showSpread(
      spread(samples, WITH_URGENT, (sample, turn) => latency(at)(beside[turn]!) / latency(at)(sample)),
      1,
    ),
  ];
};

const measure = Effect.fnUntraced(function* (options: BenchOptions) {
  const memoryBytes = memoryOf(options.quick);
  const testbed = yield* openTestbed({ workers: WORKERS });
  const small = yield* measureGuest(testbed, options, { hostPageBytes: PAGE_BYTES, only: ways });
  const pages = (HUGE_PAGES_FACTOR * memoryBytes) / HUGE_BYTES;
  const obstacle = hugePagesObstacle(pages);
  const huge = obstacle === null ? yield* measureHuge(testbed, options, pages) : null;
  const all = huge === null ? [small] : [small, huge];
  const result: Result = {
    isComplete: true,
    notes: [
      `A builtin guest of ${memoryBytes / MIB} MiB of random pages that writes 24 MiB/s all over it; ${CHANNELS} channels; postcopy is begun at the first pass, with all of its memory missing. Every page is checked by the guest afterwards.`,
      "A fault's time is counted from the moment when the loader has read it from the userfaultfd until its page is in place and the vCPU is woken.",
      `Round trip: ${ROUND_TRIPS} requests of plain nats.js, one after the other, answered by another process with 4096 bytes; same nats-server, just before each migration.`,
      "Total time of precopy: the same guest with downtime-limit 1000.",
      `Medians of ${repetitionsOf(options.quick)} turns; of ratios also the least and the most.`,
      ...(obstacle === null ? [] : [`Host pages of 2 MiB were not measured: ${obstacle}.`]),
    ],
    tables: [
      {
        titles: [
          "host pages",
          "",
          "faults",
          "p50, ms",
          "p99, ms",
          "max, ms",
          "blocked, ms",
          "total time, ms",
          "of precopy's",
        ],
        rows: all.flatMap(rowsOf),
      },
      {
        titles: ["ratio", ""],
        rows: [
          ...all.flatMap((samples) => [offOverOn(samples, "p50"), offOverOn(samples, "p99")]),
          [
            "one fault of 4 KiB over one round trip (bulk of 8 MiB/s)",
            showSpread(
              spread(small, ALONE, (sample) => latency("p50")(sample) / sample.roundTrip),
              2,
            ),
          ],
        ],
      },
    ],
    figures: {
      memoryBytes,
      channels: CHANNELS,
      guests: all.map(({ hostPage, moves, precopies }) => ({ hostPage, moves: Object.fromEntries(moves), precopies })),
    },
  };
  return result;
});

const measureHuge = (testbed: Testbed, options: BenchOptions, pages: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const held = (take: () => () => void) =>
        Effect.acquireRelease(Effect.sync(take), (giveBack) => Effect.sync(giveBack));
      yield* held(() => reserveHugePages(pages));
      for (const node of NODES) yield* held(() => mountHugePages(`${testbed.memoryDirectory}/${node}/huge`));
      return yield* measureGuest(testbed, options, {
        hostPageBytes: HUGE_BYTES,
        only: [WITH_URGENT, WITHOUT_URGENT, ALONE],
      });
    }),
  );

export const postcopy: Part = { name: "postcopy", title: "Postcopy: a fault's time, and the whole", run: measure };
