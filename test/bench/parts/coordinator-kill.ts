/** What the death of the coordinator that owns a migration costs. */
import { startBuiltin } from "@godwit/guest";
import { MIGRATIONS_BUCKET, type MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { claimFreeMemory } from "../free-memory.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { type NodeName, openTestbed, otherNode, type Testbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const WORKERS = 2;
const COORDINATORS = 2;
/** What the death of an actor may add to a migration, ms. */
const ADDED_MS_MAX = 3000;
/** Pages are dirtied all the while, so that the coordinator has verdicts to give. */
const DIRTY_RATE = 16 * MIB;

interface Pair {
  /** total-time, ms. */
  readonly undisturbed: number;
  readonly killed: number;
  readonly attempts: number;
}

const Stored = Schema.fromJsonString(Schema.Struct({ owner: Schema.String, term: Schema.Number }));

/** What the migrations bucket says of the migration. */
const storedOf = Effect.fnUntraced(function* (testbed: Testbed, migration: string) {
  const bucket = yield* testbed.fabric.bucket(MIGRATIONS_BUCKET);
  const entry = yield* bucket.get(migration);
  if (entry === null) return yield* Effect.fail(new Error(`migration ${migration} is not stored`));
  return yield* Schema.decodeUnknownEffect(Stored)(new TextDecoder().decode(entry.value));
});

const killOwner = Effect.fnUntraced(function* (testbed: Testbed, migration: string) {
  const { owner } = yield* storedOf(testbed, migration);
  const child = [...testbed.cluster.children.values()].find(({ member }) => member.incarnation === owner);
  if (child === undefined) return yield* Effect.fail(new Error(`no coordinator has incarnation ${owner}`));
  process.kill(child.pid, "SIGKILL");
});

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 256 : 512) * MIB;
  const repetitions = quick ? 2 : 5;
  const testbed = yield* openTestbed({ workers: WORKERS, coordinators: COORDINATORS });
  const guest = yield* startBuiltin({
    name: "owned",
    memoryBytes,
    dirtyRateBytesPerSecond: DIRTY_RATE,
    mix: { zero: 0, compressible: 0, random: 100 },
    directory: `${testbed.memoryDirectory}/a`,
  });
  testbed.register("a", guest);
  let at: NodeName = "a";
  const move = Effect.fnUntraced(function* (seen: (info: MigrationInfo) => void) {
    at = otherNode(at);
    claimFreeMemory(testbed.memoryDirectory, memoryBytes);
    return yield* testbed.move("owned", at, { ...UNLIMITED, "multifd-channels": WORKERS }, seen);
  });
  const moveAndKill = Effect.fnUntraced(function* () {
    let killed: Promise<void> | null = null;
    const info = yield* move(({ migration, ram, status }) => {
      if (killed !== null || status !== "active" || ram === undefined || ram.remaining === 0) return;
      killed = Effect.runPromise(killOwner(testbed, migration));
    });
    const kill: Promise<void> | null = killed;
    if (kill === null)
      return yield* Effect.fail(new Error("the migration was over before its coordinator could be killed"));
    yield* Effect.promise(() => kill);
    // A kill that came after the end would measure nothing.
    if ((yield* storedOf(testbed, info.migration)).term < 2)
      return yield* Effect.fail(new Error("the migration was not taken over"));
    yield* testbed.allUp;
    return info;
  });

  const pairs: Pair[] = [];
  // The first pair warms everybody up, and is not counted.
  for (let pair = 0; pair <= repetitions; pair++) {
    const undisturbed = yield* move(() => {});
    const killed = yield* moveAndKill();
    const times = { undisturbed: undisturbed["total-time"], killed: killed["total-time"] };
    progress(
      `${times.undisturbed} ms, with its coordinator killed ${times.killed} ms${pair === 0 ? " (warming up)" : ""}`,
    );
    if (pair > 0) pairs.push({ ...times, attempts: killed.attempts });
  }
  const added = spreadOf(pairs.map(({ undisturbed, killed }) => killed - undisturbed));
  const isComplete = added.most < ADDED_MS_MAX;
  const result: Result = {
    isComplete,
    notes: [
      `Total time of a migration of ${memoryBytes / MIB} MiB of random pages, of which ${DIRTY_RATE / MIB} MiB/s are written, alone and with the owner of ${COORDINATORS} coordinators killed (SIGKILL) in its first pass; the other one takes over. Every page is checked by the guest afterwards.`,
      `Medians of ${repetitions} pairs that were run in turn; of the added time also the least and the most.`,
      ...(isComplete ? [] : [`a coordinator's death added ${added.most} ms, more than ${ADDED_MS_MAX} ms`]),
    ],
    tables: [
      {
        titles: ["undisturbed, ms", "its coordinator killed, ms", "added, ms", "attempts"],
        rows: [
          [
            median(pairs.map(({ undisturbed }) => undisturbed)).toFixed(0),
            median(pairs.map(({ killed }) => killed)).toFixed(0),
            showSpread(added, 0),
            Math.max(...pairs.map(({ attempts }) => attempts)).toFixed(0),
          ],
        ],
      },
    ],
    figures: { memoryBytes, coordinators: COORDINATORS, pairs },
  };
  return result;
});

export const coordinatorKill: Part = { name: "coordinator-kill", title: "The coordinator dies during precopy", run };
