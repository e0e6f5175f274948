/** How long a guest waits for a page that it touches, and what a postcopy takes as a whole. */
import { startPostcopy } from "@godwit/cli/client";
import { Fabric } from "@godwit/fabric";
import { startBuiltin } from "@godwit/guest";
import type { MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { roundTrips } from "../bare/round-trip.ts";
import { claimFreeMemory } from "../free-memory.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { type NodeName, openTestbed, otherNode, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;
const WORKERS = CHANNELS + 1;
const ROUND_TRIPS = 1000;

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

interface Sample {
  readonly info: MigrationInfo;
  /** One round trip of plain nats.js just before, ms. */
  readonly roundTrip: number;
}

const measure = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 64 : 128) * MIB;
  const repetitions = quick ? 1 : 3;
  const testbed = yield* openTestbed({ workers: WORKERS });
  const guest = yield* startBuiltin({
    name: "postcopy",
    memoryBytes,
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
        "postcopy",
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
        `${way}: ${info["postcopy-requests"]} faults, p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms; round trip ${roundTrip.toFixed(2)} ms`,
      );
      return { info, roundTrip } satisfies Sample;
    });

  const samples = new Map<Way, Sample[]>(ways.map((way) => [way, []]));
  const precopies: MigrationInfo[] = [];
  // The first turn warms everybody up, and is not counted.
  for (let turn = 0; turn <= repetitions; turn++) {
    const precopy = yield* move({ "downtime-limit": 1000 }, {});
    if (turn > 0) precopies.push(precopy);
    for (const way of ways) {
      const sample = yield* postcopy(way);
      if (turn > 0) samples.get(way)!.push(sample);
    }
  }
  const of = (way: Way, what: (sample: Sample, index: number) => number) => spreadOf(samples.get(way)!.map(what));
  const latency =
    (at: "p50" | "p99" | "max") =>
    ({ info }: Sample): number =>
      info["postcopy-latency"]![at];
  const [on, off, alone] = ways as [Way, Way, Way];
  const beside = samples.get(off)!;
  const result: Result = {
    isComplete: true,
    notes: [
      `A builtin guest of ${memoryBytes / MIB} MiB of random pages of 4 KiB that writes 24 MiB/s all over it; ${CHANNELS} channels; postcopy is begun at the first pass, with all of its memory missing. Every page is checked by the guest afterwards.`,
      "A fault's time is counted from the moment when the loader has read it from the userfaultfd until its page is in place and the vCPU is woken.",
      `Round trip: ${ROUND_TRIPS} requests of plain nats.js, one after the other, answered by another process with 4096 bytes; same nats-server, just before each migration.`,
      "Total time of precopy: the same guest with downtime-limit 1000.",
      `Medians of ${repetitions} turns; of ratios also the least and the most.`,
    ],
    tables: [
      {
        titles: ["", "faults", "p50, ms", "p99, ms", "max, ms", "blocked, ms", "total time, ms", "of precopy's"],
        rows: ways.map((way) => [
          way,
          of(way, ({ info }) => info["postcopy-requests"]!).median.toFixed(0),
          of(way, latency("p50")).median.toFixed(2),
          of(way, latency("p99")).median.toFixed(2),
          of(way, latency("max")).median.toFixed(1),
          of(way, ({ info }) => median(info["postcopy-vcpu-blocktime"] ?? [0])).median.toFixed(0),
          of(way, ({ info }) => info["total-time"]).median.toFixed(0),
          showSpread(
            of(way, ({ info }, turn) => info["total-time"] / precopies[turn]!["total-time"]),
            2,
          ),
        ]),
      },
      {
        titles: ["ratio", ""],
        rows: [
          [
            "fault p50, without over with the urgent channel",
            showSpread(
              of(on, (sample, turn) => latency("p50")(beside[turn]!) / latency("p50")(sample)),
              1,
            ),
          ],
          [
            "fault p99, without over with the urgent channel",
            showSpread(
              of(on, (sample, turn) => latency("p99")(beside[turn]!) / latency("p99")(sample)),
              1,
            ),
          ],
          [
            "one fault over one round trip (bulk of 8 MiB/s)",
            showSpread(
              of(alone, (sample) => latency("p50")(sample) / sample.roundTrip),
              2,
            ),
          ],
        ],
      },
    ],
    figures: { memoryBytes, channels: CHANNELS, samples: Object.fromEntries(samples), precopies },
  };
  return result;
});

export const postcopy: Part = { name: "postcopy", title: "Postcopy: a fault's time, and the whole", run: measure };
