/** What the death of a multifd worker costs. */
import { startBuiltin } from "@godwit/guest";
import type { MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { claimFreeMemory } from "../free-memory.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { type NodeName, openTestbed, otherNode, type Testbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const WORKERS = 4;
const LANES = ["nats", "direct"] as const;
type LaneName = (typeof LANES)[number];
/** Who dies; any of them would do. */
const VICTIM = "1";

/** What the death of a worker may add to the downtime, ms: milliseconds, and no detection time-out. */
const ADDED_DOWNTIME_MS_MAX = 100;
/** Written all the while, so that the last round has something to move. */
const DIRTY_RATE = 48 * MIB;

interface Pair {
  /** total-time, or downtime, ms. */
  readonly undisturbed: number;
  readonly killed: number;
  readonly resentItems: number;
}

/** When the worker dies, and which figure that is told by. */
interface Moment {
  readonly name: string;
  readonly figure: string;
  readonly dirtyRateBytesPerSecond: number;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly has: (info: MigrationInfo) => boolean;
  readonly measure: (info: MigrationInfo) => number;
}
const PRECOPY: Moment = {
  name: "precopy",
  figure: "total time",
  dirtyRateBytesPerSecond: 0,
  parameters: {},
  has: ({ ram }) => ram !== undefined && ram.remaining <= ram.total * 0.7 && ram.remaining > 0,
  measure: (info) => info["total-time"],
};
const STOP_AND_COPY: Moment = {
  name: "stop-and-copy",
  figure: "downtime",
  dirtyRateBytesPerSecond: DIRTY_RATE,
  // Generous, so that the last round is a long one.
  parameters: { "downtime-limit": 1000 },
  has: ({ status }) => status === "device",
  measure: (info) => info.downtime ?? 0,
};

/** Migrations in turn, alone and with a worker killed at that moment. */
const pairsAt = Effect.fnUntraced(function* (
  moment: Moment,
  testbed: Testbed,
  memoryBytes: number,
  repetitions: number,
  progress: BenchOptions["progress"],
) {
  const name = `kill-${moment.name}`;
  const guest = yield* startBuiltin({
    name,
    memoryBytes,
    dirtyRateBytesPerSecond: moment.dirtyRateBytesPerSecond,
    mix: { zero: 0, compressible: 0, random: 100 },
    directory: `${testbed.memoryDirectory}/a`,
  });
  testbed.register("a", guest);
  let at: NodeName = "a";
  const move = Effect.fnUntraced(function* (lane: LaneName, seen: (info: MigrationInfo) => void) {
    at = otherNode(at);
    claimFreeMemory(testbed.memoryDirectory, memoryBytes);
    const parameters = { ...UNLIMITED, "multifd-channels": WORKERS, lane, ...moment.parameters };
    return yield* testbed.move(name, at, parameters, seen);
  });
  const moveAndKill = Effect.fnUntraced(function* (lane: LaneName) {
    const pid = testbed.pidOf("multifd-worker", at, VICTIM);
    let isKilled = false;
    const info = yield* move(lane, (seen) => {
      if (isKilled || !moment.has(seen)) return;
      isKilled = true;
      process.kill(pid, "SIGKILL");
    });
    if (!isKilled) return yield* Effect.fail(new Error("the migration was over before its worker could be killed"));
    yield* testbed.allUp;
    return info;
  });
  const rows = LANES.map((lane) => ({ moment, lane, pairs: [] as Pair[] }));
  // The first pair warms everybody up, and is not counted.
  for (let pair = 0; pair <= repetitions; pair++) {
    for (const { lane, pairs } of rows) {
      // Both in turn come first, so that neither always has the same way to go.
      const first = yield* pair % 2 === 0 ? move(lane, () => {}) : moveAndKill(lane);
      const second = yield* pair % 2 === 0 ? moveAndKill(lane) : move(lane, () => {});
      const [undisturbed, killed] = pair % 2 === 0 ? [first, second] : [second, first];
      const times = { undisturbed: moment.measure(undisturbed), killed: moment.measure(killed) };
      progress(
        `${moment.name}, ${lane}: ${times.undisturbed} ms, with a worker killed ${times.killed} ms${pair === 0 ? " (warming up)" : ""}`,
      );
      if (pair > 0) pairs.push({ ...times, resentItems: killed.ram?.["resent-items"] ?? 0 });
    }
  }
  return rows;
});

interface Row {
  readonly moment: Moment;
  readonly lane: LaneName;
  readonly pairs: ReadonlyArray<Pair>;
}

const cellsOf = ({ moment, lane, pairs }: Row): ReadonlyArray<string> => [
  `${moment.name}: ${moment.figure}`,
  lane,
  median(pairs.map(({ undisturbed }) => undisturbed)).toFixed(0),
  median(pairs.map(({ killed }) => killed)).toFixed(0),
  showSpread(spreadOf(pairs.map(({ undisturbed, killed }) => killed - undisturbed)), 0),
  showSpread(spreadOf(pairs.map(({ undisturbed, killed }) => (100 * (killed - undisturbed)) / undisturbed)), 1),
  median(pairs.map(({ resentItems }) => resentItems)).toFixed(0),
];

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 256 : 512) * MIB;
  const repetitions = quick ? 2 : 5;
  const testbed = yield* openTestbed({ workers: WORKERS });
  const precopy = yield* pairsAt(PRECOPY, testbed, memoryBytes, repetitions, progress);
  const stopped = yield* pairsAt(STOP_AND_COPY, testbed, memoryBytes, repetitions, progress);
  const added = stopped.map(({ pairs }) => median(pairs.map(({ undisturbed, killed }) => killed - undisturbed)));
  const isKept = added.every((addedMs) => addedMs < ADDED_DOWNTIME_MS_MAX);
  const result: Result = {
    isComplete: true,
    notes: [
      `A guest of ${memoryBytes / MIB} MiB of random pages over ${WORKERS} channels, alone and with one of ${WORKERS} workers killed (SIGKILL): total time with the kill when at most 70% was left, and downtime with the kill in stop-and-copy (the guest writes ${DIRTY_RATE / MIB} MiB/s then). The supervisor starts the worker again. Every page is checked by the guest afterwards.`,
      `Medians of ${repetitions} pairs that were run in turn; of what is added also the least and the most. In stop-and-copy at most ${ADDED_DOWNTIME_MS_MAX} ms are promised: ${isKept ? "kept" : "NOT kept"}.`,
    ],
    tables: [
      {
        titles: [
          "killed in",
          "lane",
          "undisturbed, ms",
          "one worker killed, ms",
          "added, ms",
          "added, %",
          "items sent again",
        ],
        rows: [...precopy, ...stopped].map(cellsOf),
      },
    ],
    figures: {
      memoryBytes,
      workers: WORKERS,
      rows: [...precopy, ...stopped].map(({ moment, lane, pairs }) => ({ moment: moment.name, lane, pairs })),
    },
  };
  return result;
});

export const workerKill: Part = { name: "worker-kill", title: "A worker dies in precopy, and in stop-and-copy", run };
