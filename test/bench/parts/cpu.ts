/** What each actor costs. */
import * as Effect from "effect/Effect";
import { type Actor, spentBy } from "../actors.ts";
import { openBareLane } from "../bare/lane.ts";
import { MESSAGE_BYTES, MESSAGE_PAYLOAD_BYTES, WINDOW_BYTES } from "../bare/sizes.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { childRunning } from "../process-usage.ts";
import { median } from "../samples.ts";
import { openShuttle, RANDOM } from "../shuttle.ts";
import { openTestbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;
const LANES = ["nats", "direct"] as const;

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 128 : 1024) * MIB;
  const repetitions = quick ? 1 : 3;
  const perGiB = 1024 ** 3 / memoryBytes;
  const testbed = yield* openTestbed({ workers: CHANNELS });
  const shuttle = yield* openShuttle(testbed, { name: "cpu", memoryBytes, mix: RANDOM, workers: CHANNELS });
  const bare = yield* openBareLane({
    client: "nats.js",
    url: testbed.cluster.url,
    fabric: testbed.fabric,
    publishers: CHANNELS,
    messageBytes: MESSAGE_BYTES,
    messages: memoryBytes / MESSAGE_PAYLOAD_BYTES / CHANNELS,
    window: WINDOW_BYTES / MESSAGE_PAYLOAD_BYTES,
  });
  const bareActors: ReadonlyArray<Actor> = [
    { name: `publishers (${CHANNELS})`, pids: bare.publisherPids },
    { name: "subscriber", pids: [bare.subscriberPid] },
    { name: "nats-server", pids: [childRunning("nats-server")] },
  ];

  const overLane = (lane: (typeof LANES)[number]) =>
    Effect.map(shuttle.move({ ...UNLIMITED, "multifd-channels": CHANNELS, lane }), ({ cpu }) => ({
      names: cpu.map(({ name }) => name),
      seconds: cpu.map(({ seconds }) => seconds),
    }));
  const samples: Array<Record<(typeof LANES)[number] | "bare", ReadonlyArray<number>>> = [];
  let names: ReadonlyArray<string> = [];
  // The first repetition warms everybody up, and is not counted.
  for (let repetition = 0; repetition <= repetitions; repetition++) {
    const [nats, direct] = [yield* overLane("nats"), yield* overLane("direct")];
    const { seconds: bareSeconds } = yield* spentBy(bareActors, bare.run);
    names = nats.names;
    if (repetition > 0) samples.push({ nats: nats.seconds, direct: direct.seconds, bare: bareSeconds });
    progress(`repetition ${repetition} of ${repetitions}`);
  }
  const medians = (of: (typeof LANES)[number] | "bare"): ReadonlyArray<number> =>
    samples[0]![of].map((_, actor) => perGiB * median(samples.map((sample) => sample[of][actor]!)));
  const sum = (seconds: ReadonlyArray<number>): string => seconds.reduce((all, each) => all + each, 0).toFixed(2);
  const [nats, direct, theirs] = [medians("nats"), medians("direct"), medians("bare")];
  const result: Result = {
    isComplete: true,
    notes: [
      `User and system time from /proc/PID/stat over a whole migration of ${memoryBytes / MIB} MiB of random pages (idle builtin guest, ${CHANNELS} channels), from the request to the coordinator to the end; medians of ${repetitions}.`,
      "Bare: the yardstick of the lane, same bytes, same nats-server.",
    ],
    tables: [
      {
        titles: ["actor", "lane nats, CPU s/GiB", "lane direct"],
        rows: [
          ...names.map((name, actor) => [name, nats[actor]!.toFixed(2), direct[actor]!.toFixed(2)]),
          ["all of godwit", sum(nats), sum(direct)],
        ],
      },
      {
        titles: ["bare nats.js", "CPU s/GiB"],
        rows: [...bareActors.map(({ name }, actor) => [name, theirs[actor]!.toFixed(2)]), ["all of it", sum(theirs)]],
      },
    ],
    figures: { memoryBytes, channels: CHANNELS, names, samples },
  };
  return result;
});

export const cpu: Part = { name: "cpu", title: "CPU time of each actor", run };
