/** What the death of a multifd worker costs. */
import { startBuiltin } from "@godwit/guest";
import type { MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { claimFreeMemory } from "../free-memory.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { type NodeName, openTestbed, otherNode, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const WORKERS = 4;
/** Who dies; any of them would do. */
const VICTIM = "1";

interface Pair {
  /** total-time, ms. */
  readonly undisturbed: number;
  readonly killed: number;
  readonly resentItems: number;
}

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 256 : 512) * MIB;
  const repetitions = quick ? 1 : 4;
  const testbed = yield* openTestbed({ workers: WORKERS });
  const guest = yield* startBuiltin({
    name: "kill",
    memoryBytes,
    dirtyRateBytesPerSecond: 0,
    mix: { zero: 0, compressible: 0, random: 100 },
    directory: `${testbed.memoryDirectory}/a`,
  });
  testbed.register("a", guest);
  let at: NodeName = "a";
  const move = Effect.fnUntraced(function* (seen: (info: MigrationInfo) => void) {
    at = otherNode(at);
    claimFreeMemory(testbed.memoryDirectory, memoryBytes);
    return yield* testbed.move("kill", at, { ...UNLIMITED, "multifd-channels": WORKERS }, seen);
  });
  const moveAndKill = Effect.fnUntraced(function* () {
    const pid = testbed.pidOf("multifd-worker", at, VICTIM);
    let killedAt = 0;
    const info = yield* move(({ ram }) => {
      if (killedAt !== 0 || ram === undefined || ram.remaining > ram.total * 0.7 || ram.remaining === 0) return;
      killedAt = ram.remaining;
      process.kill(pid, "SIGKILL");
    });
    if (killedAt === 0)
      return yield* Effect.fail(new Error("the migration was over before its worker could be killed"));
    yield* testbed.allUp;
    return info;
  });

  const pairs: Pair[] = [];
  // The first pair warms everybody up, and is not counted.
  for (let pair = 0; pair <= repetitions; pair++) {
    const undisturbed = yield* move(() => {});
    const killed = yield* moveAndKill();
    const times = { undisturbed: undisturbed["total-time"], killed: killed["total-time"] };
    progress(`${times.undisturbed} ms, with a worker killed ${times.killed} ms${pair === 0 ? " (warming up)" : ""}`);
    if (pair > 0) pairs.push({ ...times, resentItems: killed.ram?.["resent-items"] ?? 0 });
  }
  const added = spreadOf(pairs.map(({ undisturbed, killed }) => killed - undisturbed));
  const result: Result = {
    isComplete: true,
    notes: [
      `Total time of a migration of ${memoryBytes / MIB} MiB of random pages over ${WORKERS} channels, alone and with one of ${WORKERS} workers killed (SIGKILL) when at most 70% was left; the supervisor starts it again. Every page is checked by the guest afterwards.`,
      `Medians of ${repetitions} pairs that were run in turn; of the added time also the least and the most.`,
    ],
    tables: [
      {
        titles: ["undisturbed, ms", "one worker killed, ms", "added, ms", "items sent again"],
        rows: [
          [
            median(pairs.map(({ undisturbed }) => undisturbed)).toFixed(0),
            median(pairs.map(({ killed }) => killed)).toFixed(0),
            showSpread(added, 0),
            median(pairs.map(({ resentItems }) => resentItems)).toFixed(0),
          ],
        ],
      },
    ],
    figures: { memoryBytes, workers: WORKERS, pairs },
  };
  return result;
});

export const workerKill: Part = { name: "worker-kill", title: "A worker dies during precopy", run };
