// `npm run simulate -- --seeds 100000 [--from 1] [--jobs 2]`: whole migrations on the simulated network, each from its seed.
// `npm run simulate -- --seed 42`: one of them, told line by line. Exit code 1 when an invariant was broken.
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { FAULTS, MOMENTS, strikeKey } from "./nemesis.ts";
import { tell } from "./story.ts";
import { addTally, emptyTally, type Tally, tallyOf } from "./tally.ts";

/** Seeds that a thread runs before it reports, so that progress shows and threads end together. */
const BATCH = 500;
const DEFAULT_SEEDS = 10_000;

const number = (name: string, text: string | undefined, fallback: number): number => {
  if (text === undefined) return fallback;
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  process.stderr.write(`--${name} expects a whole number above 0, got ${JSON.stringify(text)}\n`);
  process.exit(2);
};

/** Has `jobs` threads take batch after batch. */
const runAll = async (from: number, seeds: number, jobs: number, progress: (tally: Tally) => void): Promise<Tally> => {
  const tally = emptyTally();
  let next = from;
  const end = from + seeds;
  const work = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: null });
      const hand = (): void => {
        if (next >= end) return void worker.terminate();
        const count = Math.min(BATCH, end - next);
        worker.postMessage({ from: next, count });
        next += count;
      };
      worker.on("message", (part: Tally) => {
        addTally(tally, part);
        progress(tally);
        hand();
      });
      worker.once("error", reject);
      worker.once("exit", () => resolve());
      hand();
    });
  await Promise.all(Array.from({ length: jobs }, work));
  return tally;
};

const show = (tally: Tally, seconds: number): string => {
  const list = (counts: Record<string, number>): string =>
    Object.entries(counts)
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([name, count]) => `${name} ${count}`)
      .join(", ");
  const never = FAULTS.flatMap((fault) => MOMENTS.map((moment) => strikeKey(fault, moment))).filter(
    (key) => tally.strikes[key] === undefined,
  );
  return [
    `${tally.seeds} migrations in ${seconds.toFixed(0)} s: ${list(tally.endings)}; attempts: ${list(tally.attempts)}; coordinators: ${list(tally.terms)}`,
    `faults: ${list(tally.seen)}, pages changed on their way ${tally.flips}, postcopies ${tally.postcopies}, given up ${tally.givenUp}`,
    `strikes: ${Object.values(tally.strikes).reduce((sum, times) => sum + times, 0)}, ${Object.keys(tally.strikes).length} kinds`,
    ...(never.length === 0 ? [] : [`never struck: ${never.join(", ")}`]),
    `violations: ${tally.violations}`,
    ...tally.bad.map(({ seed, what }) => `  seed ${seed}: ${what}   (npm run simulate -- --seed ${seed})`),
    "",
  ].join("\n");
};

const main = async (): Promise<void> => {
  const { values } = parseArgs({
    options: {
      seeds: { type: "string" },
      from: { type: "string" },
      jobs: { type: "string" },
      seed: { type: "string" },
    },
  });
  if (values.seed !== undefined) {
    const story = tell(number("seed", values.seed, 1));
    process.stdout.write(`${story}\n`);
    process.exitCode = story.includes("\nVIOLATION") ? 1 : 0;
    return;
  }
  const seeds = number("seeds", values.seeds, DEFAULT_SEEDS);
  const jobs = number("jobs", values.jobs, availableParallelism());
  const startedAt = performance.now();
  const tally = await runAll(number("from", values.from, 1), seeds, jobs, (so) =>
    process.stderr.write(`\r${so.seeds} of ${seeds}, violations ${so.violations}`),
  );
  process.stderr.write("\n");
  process.stdout.write(show(tally, (performance.now() - startedAt) / 1000));
  process.exitCode = tally.violations === 0 ? 0 : 1;
};

if (isMainThread) await main();
else if (workerData === null)
  parentPort?.on("message", ({ from, count }: { from: number; count: number }) =>
    parentPort?.postMessage(tallyOf(from, count)),
  );
