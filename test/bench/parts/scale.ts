/** What a guest's size costs, and what follows from that for one of 1 TiB. */
import { availableParallelism } from "node:os";
import * as Effect from "effect/Effect";
import { runMany } from "../../simulation/many.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import {
  type Costs,
  type Host,
  type Load,
  lineThrough,
  type Prediction,
  passSeconds,
  predict,
} from "../scale/model.ts";
import { moveSparse, type SparseFigures, STAGES, type Stage } from "../scale/sparse-guest.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
const TIB = 1024 ** 4;
/** What is resident at each side, whatever the guest's size. */
const DATA_BYTES = 256 * MIB;
const DIRTY_RATE = 16 * MIB;
const WORKING_SET_BYTES = 64 * MIB;
const WORKERS = 2;
const CHANNELS = 2;
const MANY_CHANNELS = 64;
const MIGRATIONS = 100;
/** ms */
const DOWNTIME_LIMIT = 300;
/** Nothing but the processors limits a pass over loopback. */
const LOOPBACK = Number.POSITIVE_INFINITY;

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const sizes = (quick ? [1, 2, 4] : [4, 16, 64]).map((size) => size * GIB);
  const sparse = {
    dataBytes: DATA_BYTES,
    dirtyBytesPerSecond: DIRTY_RATE,
    workingSetBytes: WORKING_SET_BYTES,
    channels: CHANNELS,
    workers: WORKERS,
  };
  const measured: SparseFigures[] = [];
  for (const memoryBytes of sizes) {
    const figures = yield* moveSparse({ ...sparse, memoryBytes });
    progress(`${memoryBytes / GIB} GiB: ${figures.totalMs} ms, downtime ${figures.downtimeMs} ms`);
    measured.push(figures);
  }
  const denseBytes = (quick ? 256 : 1024) * MIB;
  const dense = yield* moveSparse({
    ...sparse,
    memoryBytes: denseBytes,
    dataBytes: denseBytes,
    dirtyBytesPerSecond: 0,
    workingSetBytes: MIB,
  });
  progress(`${denseBytes / MIB} MiB without holes: ${dense.totalMs} ms`);
  const wide = yield* Effect.forEach([CHANNELS, MANY_CHANNELS], (channels) =>
    moveSparse({ ...sparse, memoryBytes: DATA_BYTES, channels, workers: 4 }),
  );
  progress(`${MANY_CHANNELS} channels: ${wide[1]!.totalMs} ms`);
  const many = runMany(1, MIGRATIONS);
  progress(`${MIGRATIONS} simulated migrations: ${many.seconds.toFixed(1)} s`);

  const costs = costsOf(measured, dense);
  const here: Host = { processors: availableParallelism(), workers: WORKERS, linkBytesPerSecond: LOOPBACK };
  const checks = [...measured, dense].map((figures) => ({ figures, predicted: predict(costs, here, loadOf(figures)) }));
  const predictions = TARGETS.map((target) => ({ ...target, predicted: predict(costs, target.host, target.load) }));
  const result: Result = {
    isComplete: many.violation === null,
    notes: [
      `Builtin guests with ${DATA_BYTES / MIB} MiB of random pages, of which ${WORKING_SET_BYTES / MIB} MiB are written over and over at ${DIRTY_RATE / MIB} MiB/s; all other memory was never touched. ${CHANNELS} channels and workers, lane direct, without \`verify\`; fresh actors for each, one migration each. "Answer": the longest that RAM sender and loader took to refuse a question meanwhile (asked every 50 ms), which is how long their event loops were busy.`,
      `64 channels: a guest of ${DATA_BYTES / MIB} MiB over ${CHANNELS} and ${MANY_CHANNELS} channels of four workers.`,
      many.violation === null
        ? `${MIGRATIONS} migrations at once on the simulated network, between the same two hosts with one RAM sender, one loader, three workers and two coordinators, and a storm of faults: ${many.endings}; every guest ran once and none was lost; ${many.steps} steps and ${(many.virtualMs / 1000).toFixed(0)} s of theirs in ${many.seconds.toFixed(1)} s.`
        : `${MIGRATIONS} migrations at once on the simulated network: ${many.violation}`,
      `The model (test/bench/scale/model.ts) has its costs from this run: of holes, set-up and syncs from the guests of ${sizes[0]! / GIB} and ${sizes[1]! / GIB} GiB, of data from the one without holes, with the processors of this machine shared by all. Its prediction for ${sizes[2]! / GIB} GiB is an extrapolation; those for 1 TiB are, too, and assume that each process has a core.`,
    ],
    tables: [sizesTable(measured), channelsTable(wide), checksTable(checks), targetsTable(predictions)],
    figures: { measured, dense, wide, many, costs, checks, predictions },
  };
  return result;
});

const loadOf = (figures: SparseFigures): Load => ({
  dataBytes: figures.dataBytes,
  holeBytes: figures.memoryBytes - figures.dataBytes,
  dirtyBytesPerSecond: figures.dirtyBytesPerSecond,
  workingSetBytes: figures.workingSetBytes,
  downtimeLimitMs: DOWNTIME_LIMIT,
});

/** What of the downtime grows with neither the sync nor what the last round moves. */
const otherDowntime = ({ downtimeMs, finalSyncMs, finalRoundMs }: SparseFigures): number =>
  downtimeMs - finalSyncMs - finalRoundMs;
/** While the guest ran, after the first. */
const laterSyncs = ({ syncMs }: SparseFigures): number => {
  const later = syncMs.slice(1);
  return later.reduce((sum, ms) => sum + ms, 0) / Math.max(1, later.length);
};

const costsOf = (measured: ReadonlyArray<SparseFigures>, dense: SparseFigures): Costs => {
  const [small, middle] = measured as [SparseFigures, SparseFigures];
  const line = (of: (figures: SparseFigures) => number) =>
    lineThrough({ bytes: small.memoryBytes, value: of(small) }, { bytes: middle.memoryBytes, value: of(middle) });
  const each = (of: (stage: Stage) => number) => ({
    sender: of("sender"),
    workers: of("workers"),
    loader: of("loader"),
  });
  const data = each((stage) => (dense.cpu[stage] * GIB) / dense.dataBytes);
  const costs: Costs = {
    data,
    holes: each((stage) => Math.max(0, line(({ cpu }) => cpu[stage]).perGiB)),
    efficiency: 1,
    setupMs: line(({ setupMs }) => setupMs),
    syncMs: line(laterSyncs),
    downtimeMs: line(otherDowntime),
  };
  const host: Host = { processors: availableParallelism(), workers: WORKERS, linkBytesPerSecond: LOOPBACK };
  const passMs = dense.totalMs - dense.setupMs - dense.downtimeMs;
  return { ...costs, efficiency: (passSeconds(costs, host, dense.dataBytes, 0) * 1000) / passMs };
};

const LINK_100G = 100e9 / 8;
const LARGE: Load = {
  dataBytes: TIB,
  holeBytes: 0,
  dirtyBytesPerSecond: 256 * MIB,
  workingSetBytes: 8 * GIB,
  downtimeLimitMs: DOWNTIME_LIMIT,
};
const LARGE_HOST: Host = { processors: 64, workers: 16, linkBytesPerSecond: LINK_100G };
const TARGETS = [
  { name: "1 TiB, all of it data", host: LARGE_HOST, load: LARGE },
  {
    name: "1 TiB, half of it never touched",
    host: LARGE_HOST,
    load: { ...LARGE, dataBytes: TIB / 2, holeBytes: TIB / 2 },
  },
  { name: "1 TiB, idle", host: LARGE_HOST, load: { ...LARGE, dirtyBytesPerSecond: 0 } },
] as const;

const sizesTable = (measured: ReadonlyArray<SparseFigures>) => {
  const row = (title: string, of: (figures: SparseFigures) => number, digits: number, scale = 1) => {
    const values = measured.map((figures) => of(figures) / scale);
    const [first, last] = [measured[0]!, measured.at(-1)!];
    const perGiB = ((values.at(-1)! - values[0]!) * GIB) / (last.memoryBytes - first.memoryBytes);
    return [title, ...values.map((value) => value.toFixed(digits)), perGiB.toFixed(3)];
  };
  return {
    titles: ["", ...measured.map(({ memoryBytes }) => `${memoryBytes / GIB} GiB`), "for each GiB more"],
    rows: [
      ["dirty tracker", ...measured.map(({ tracker }) => tracker), ""],
      row("set-up, ms", ({ setupMs }) => setupMs, 0),
      row("total, ms", ({ totalMs }) => totalMs, 0),
      row("downtime, ms", ({ downtimeMs }) => downtimeMs, 0),
      row("rounds", ({ rounds }) => rounds, 0),
      row("first sync, ms", ({ syncMs }) => syncMs[0] ?? Number.NaN, 1),
      row("later syncs, mean ms", laterSyncs, 1),
      ...STAGES.map((stage) => row(`CPU of the ${stage}, s`, ({ cpu }) => cpu[stage], 2)),
      ...STAGES.map((stage) => row(`peak of the ${stage}, MiB`, ({ peak }) => peak[stage], 1, MIB)),
      row("longest answer to query-migrate, bytes", ({ statusBytes }) => statusBytes, 0),
      row("longest report of the RAM sender, bytes", ({ reportBytes }) => reportBytes, 0),
      row("RAM sender's answer, most ms", ({ answerMs }) => answerMs.sender, 0),
      row("loader's answer, most ms", ({ answerMs }) => answerMs.loader, 0),
    ],
  };
};

const channelsTable = (wide: ReadonlyArray<SparseFigures>) => ({
  titles: [
    "channels",
    "set-up, ms",
    "total, ms",
    "downtime, ms",
    "query-migrate, bytes",
    "report, bytes",
    "answer, most ms",
  ],
  rows: wide.map(({ channels, setupMs, totalMs, downtimeMs, statusBytes, reportBytes, answerMs }) =>
    [channels, setupMs, totalMs, downtimeMs, statusBytes, reportBytes, answerMs.sender].map((value) =>
      value.toFixed(0),
    ),
  ),
});

const checksTable = (checks: ReadonlyArray<{ readonly figures: SparseFigures; readonly predicted: Prediction }>) => ({
  titles: ["guest", "total measured, ms", "predicted", "ratio", "downtime measured, ms", "predicted"],
  rows: checks.map(({ figures, predicted }) => [
    `${figures.memoryBytes / GIB} GiB, ${figures.dataBytes / MIB} MiB of it data`,
    figures.totalMs.toFixed(0),
    predicted.totalMs.toFixed(0),
    (predicted.totalMs / figures.totalMs).toFixed(2),
    figures.downtimeMs.toFixed(0),
    predicted.downtimeMs.toFixed(0),
  ]),
});

const targetsTable = (predictions: ReadonlyArray<{ readonly name: string; readonly predicted: Prediction }>) => ({
  titles: ["predicted for 100 Gbit/s, 16 workers", "total, s", "downtime, ms", "rounds", "waits for", "within 300 ms"],
  rows: predictions.map(({ name, predicted: { totalMs, downtimeMs, rounds, bottleneck, converges } }) => [
    name,
    (totalMs / 1000).toFixed(0),
    downtimeMs.toFixed(0),
    String(rounds),
    bottleneck,
    converges ? "yes" : "no",
  ]),
});

export const scale: Part = { name: "scale", title: "Large guests, many channels, many migrations", run };
