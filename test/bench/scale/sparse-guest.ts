/** One migration of a guest whose memory is mostly holes, and all that it is seen to cost. */
import { queryRestore, querySave } from "@godwit/cli/client";
import { Fabric } from "@godwit/fabric";
import { startBuiltin } from "@godwit/guest";
import {
  ANY_ROUTE,
  isMalformed,
  json,
  type MigrationId,
  MigrationInfo,
  SourceReport,
  subjects,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { actorsOf } from "../actors.ts";
import { claimFreeMemory } from "../free-memory.ts";
import { cpuSeconds, forgetPeak, peakBytes } from "../process-usage.ts";
import { NODES, openTestbed, type Testbed, UNCOMPARED, UNLIMITED } from "../testbed.ts";

export interface SparseGuest {
  readonly memoryBytes: number;
  /** From address 0 on, random; the rest is never touched. */
  readonly dataBytes: number;
  readonly dirtyBytesPerSecond: number;
  readonly workingSetBytes: number;
  readonly channels: number;
  readonly workers: number;
}

/** The actors whose costs grow with the guest, if any do. */
export const STAGES = ["sender", "workers", "loader"] as const;
export type Stage = (typeof STAGES)[number];

export interface SparseFigures extends SparseGuest {
  readonly tracker: string;
  readonly setupMs: number;
  readonly totalMs: number;
  readonly downtimeMs: number;
  /** What of the downtime went by while the last sync went on, and then until the last round was applied, ms. */
  readonly finalSyncMs: number;
  readonly finalRoundMs: number;
  readonly rounds: number;
  /** Of each sync while the guest ran, ms: the first one sends while it looks. */
  readonly syncMs: ReadonlyArray<number>;
  /** User and system time of a stage, s. */
  readonly cpu: Readonly<Record<Stage, number>>;
  /** The most memory resident in one process of a stage, beyond what it had before, bytes. */
  readonly peakGrowth: Readonly<Record<Stage, number>>;
  readonly peak: Readonly<Record<Stage, number>>;
  /** The longest answer to `query-migrate`, and report of the RAM sender, bytes. */
  readonly statusBytes: number;
  readonly reportBytes: number;
  /** How long RAM sender and loader took to answer a question that costs nothing, meanwhile, the most, ms: their event loops. */
  readonly answerMs: { readonly sender: number; readonly loader: number };
}

/** Of a save or restore that nobody has begun: the answer is a refusal, and takes a turn of the event loop. */
const UNKNOWN_ID = "00000000000000ff" as MigrationId;
/** Between two questions, ms. */
const ASK_EVERY_MS = 50;
const REPORTS_WAITING_MAX = 4096;

/** Moves it once by the direct lane, with fresh actors. */
export const moveSparse = (guest: SparseGuest): Effect.Effect<SparseFigures, unknown> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { memoryBytes, dataBytes, dirtyBytesPerSecond, workingSetBytes, channels, workers } = guest;
      const name = "sparse";
      const testbed = yield* openTestbed({ workers, memoryRoomBytes: NODES.length * memoryBytes });
      const started = yield* startBuiltin({
        name,
        memoryBytes,
        // Left to devices, of which it has none.
        dmaWindowBytes: memoryBytes - dataBytes,
        dirtyRateBytesPerSecond: dirtyBytesPerSecond,
        workingSetBytes,
        mix: { zero: 0, compressible: 0, random: 100 },
        directory: `${testbed.memoryDirectory}/a`,
      });
      testbed.register("a", started);
      const pids = pidsOf(testbed, workers);
      const each = <A>(of: (pids: ReadonlyArray<number>) => A) =>
        ({ sender: of(pids.sender), workers: of(pids.workers), loader: of(pids.loader) }) satisfies Record<Stage, A>;
      const cpu = () => each((all) => all.reduce((sum, pid) => sum + cpuSeconds(pid), 0));
      const peaks = () => each((all) => Math.max(...all.map(peakBytes)));
      claimFreeMemory(testbed.memoryDirectory, dataBytes);
      const reports = yield* watchReports(testbed);
      const answers = yield* watchAnswers(testbed);
      for (const pid of STAGES.flatMap((stage) => pids[stage])) forgetPeak(pid);
      const [cpuBefore, peakBefore] = [cpu(), peaks()];
      let statusBytes = 0;
      const info = yield* testbed.move(
        name,
        "b",
        { ...UNLIMITED, lane: "direct", "multifd-channels": channels },
        (seen) => {
          statusBytes = Math.max(statusBytes, statusCodec.encode(seen).length);
        },
        "unverified",
        UNCOMPARED,
      );
      const [cpuAfter, peak] = [cpu(), peaks()];
      yield* testbed.verified(name, "b");
      const difference = (after: Record<Stage, number>, before: Record<Stage, number>) => ({
        sender: after.sender - before.sender,
        workers: after.workers - before.workers,
        loader: after.loader - before.loader,
      });
      return {
        ...guest,
        tracker: info["dirty-tracker"] ?? "none",
        setupMs: info["setup-time"] ?? Number.NaN,
        totalMs: info["total-time"],
        downtimeMs: info.downtime ?? Number.NaN,
        ...lastRoundOf(info),
        rounds: info.ram?.["dirty-sync-count"] ?? 0,
        syncMs: [...reports.syncMs.values()],
        cpu: difference(cpuAfter, cpuBefore),
        peakGrowth: difference(peak, peakBefore),
        peak,
        statusBytes,
        reportBytes: reports.bytes,
        answerMs: { ...answers },
      };
    }),
  );

/** What is sent goes on beside the sync that finds it: the round's own part is what comes after that. */
const lastRoundOf = ({ waterfall }: MigrationInfo) => {
  const find = (name: string) => waterfall?.parts.find(({ part }) => part === name);
  const [sync, send] = [find("final-sync"), find("send")];
  const endOf = (part: typeof sync): number => (part === undefined ? 0 : part.begin + part.length);
  return {
    finalSyncMs: (sync?.length ?? 0) / 1000,
    finalRoundMs: send === undefined ? 0 : Math.max(0, endOf(send) - endOf(sync)) / 1000,
  };
};

const statusCodec = json(MigrationInfo);
const reportCodec = json(SourceReport);

const pidsOf = (testbed: Testbed, workers: number): Readonly<Record<Stage, ReadonlyArray<number>>> => {
  const actors = actorsOf(testbed, "a", workers);
  const of = (name: string) => actors.find((actor) => actor.name.includes(name))!.pids;
  return { sender: of("RAM sender"), workers: of("workers"), loader: of("loader") };
};

/** What the RAM sender reports, as it comes by. */
const watchReports = Effect.fnUntraced(function* ({ fabric }: Testbed) {
  const seen = { bytes: 0, syncMs: new Map<number, number>() };
  const reports = yield* fabric.subscribe(subjects.sourceReport(ANY_ROUTE), { capacity: REPORTS_WAITING_MAX });
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(reports.takeAll, (messages) => {
        for (const { data } of messages) {
          seen.bytes = Math.max(seen.bytes, data.length);
          const report = reportCodec.decode(data);
          if (isMalformed(report) || report.verdict === undefined) continue;
          seen.syncMs.set(report.verdict.round, report.verdict["sync-ms"]);
        }
      }),
    ),
  );
  return seen;
});

/** Asks both sides all the while; until the scope ends. */
const watchAnswers = Effect.fnUntraced(function* ({
  fabric,
}: Testbed): Effect.fn.Return<{ sender: number; loader: number }, never, Scope.Scope> {
  const most = { sender: 0, loader: 0 };
  const watch = (side: keyof typeof most, ask: Effect.Effect<unknown, unknown, Fabric>) =>
    Effect.gen(function* () {
      const askedMs = performance.now();
      yield* Effect.exit(ask);
      most[side] = Math.max(most[side], performance.now() - askedMs);
      yield* Effect.sleep(ASK_EVERY_MS);
    }).pipe(Effect.forever, Effect.provideService(Fabric, fabric), Effect.forkScoped);
  yield* watch("sender", querySave("a", { id: UNKNOWN_ID }));
  yield* watch("loader", queryRestore("b", { id: UNKNOWN_ID }));
  return most;
});
