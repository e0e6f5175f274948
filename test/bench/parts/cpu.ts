/** What each actor costs. */
import { startBuiltin } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { type Actor, actorsOf } from "../actors.ts";
import { openBareLane } from "../bare/lane.ts";
import { MESSAGE_BYTES, MESSAGE_PAYLOAD_BYTES, WINDOW_BYTES } from "../bare/sizes.ts";
import { claimFreeMemory } from "../free-memory.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { childRunning, cpuSeconds } from "../process-usage.ts";
import { median } from "../samples.ts";
import { type NodeName, openTestbed, otherNode, UNCOMPARED, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;

/** CPU seconds of each actor while `work` runs. */
const spent = <E>(actors: ReadonlyArray<Actor>, work: Effect.Effect<unknown, E>): Effect.Effect<number[], E> =>
  Effect.gen(function* () {
    const read = () => actors.map(({ pids }) => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0));
    const before = read();
    yield* work;
    return read().map((after, at) => after - before[at]!);
  });

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 128 : 1024) * MIB;
  const repetitions = quick ? 1 : 3;
  const perGiB = 1024 ** 3 / memoryBytes;
  const testbed = yield* openTestbed({ workers: CHANNELS });
  const guest = yield* startBuiltin({
    name: "cpu",
    memoryBytes,
    dirtyRateBytesPerSecond: 0,
    mix: { zero: 0, compressible: 0, random: 100 },
    directory: `${testbed.memoryDirectory}/a`,
  });
  testbed.register("a", guest);
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
    { name: `bare: publishers (${CHANNELS})`, pids: bare.publisherPids },
    { name: "bare: subscriber", pids: [bare.subscriberPid] },
    { name: "bare: nats-server", pids: [childRunning("nats-server")] },
  ];

  let at: NodeName = "a";
  const samples: number[][] = [];
  let names: ReadonlyArray<string> = [];
  // The first repetition warms everybody up, and is not counted.
  for (let repetition = 0; repetition <= repetitions; repetition++) {
    const actors = actorsOf(testbed, at, CHANNELS);
    at = otherNode(at);
    claimFreeMemory(testbed.memoryDirectory, memoryBytes);
    const ours = yield* spent(
      actors,
      testbed.move(
        "cpu",
        at,
        { ...UNLIMITED, "multifd-channels": CHANNELS, lane: process.env["LANE"] ?? "nats" },
        undefined,
        "unverified",
        UNCOMPARED,
      ),
    );
    yield* testbed.verified("cpu", at);
    const theirs = yield* spent(bareActors, bare.run);
    names = [...actors, ...bareActors].map(({ name }) => name);
    if (repetition > 0) samples.push([...ours, ...theirs].map((seconds) => seconds * perGiB));
    progress(`repetition ${repetition} of ${repetitions}`);
  }
  const seconds = names.map((_, actor) => median(samples.map((sample) => sample[actor]!)));
  const ours = seconds.slice(0, -bareActors.length).reduce((sum, each) => sum + each, 0);
  const theirs = seconds.slice(-bareActors.length).reduce((sum, each) => sum + each, 0);
  const result: Result = {
    isComplete: true,
    notes: [
      `User and system time from /proc/PID/stat over a whole migration of ${memoryBytes / MIB} MiB of random pages (idle builtin guest, ${CHANNELS} channels), from the request to the coordinator to the end; medians of ${repetitions}.`,
      "Bare: the yardstick of the lane, same bytes, same nats-server.",
    ],
    tables: [
      {
        titles: ["actor", "CPU s/GiB"],
        rows: [
          ...names.slice(0, -bareActors.length).map((name, at) => [name, seconds[at]!.toFixed(2)]),
          ["all of godwit", ours.toFixed(2)],
          ...bareActors.map(({ name }, at) => [name, seconds[names.length - bareActors.length + at]!.toFixed(2)]),
          ["all of bare", theirs.toFixed(2)],
        ],
      },
    ],
    figures: { memoryBytes, channels: CHANNELS, names, samples },
  };
  return result;
});

export const cpu: Part = { name: "cpu", title: "CPU time of each actor", run };
