/** What capability `encryption` costs: the same guest over the same channels with and without it, in turn. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as Effect from "effect/Effect";
import { issueCredentials } from "../../integration/credentials.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { carriersOf, openShuttle, RANDOM } from "../shuttle.ts";
import { NODES, openTestbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;

interface Sample {
  /** MiB/s of guest pages in the first pass. */
  readonly rate: number;
  /** Of the workers and the loader, over the whole migration, CPU s for each GiB. */
  readonly cpu: number;
}

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 128 : 512) * MIB;
  const repetitions = quick ? 1 : 7;
  const credentials = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "godwit-bench-credentials-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true })),
  );
  const credentialsOf = issueCredentials(credentials, NODES);
  const testbed = yield* openTestbed({
    workers: CHANNELS,
    credentialsOf: (node) => (NODES.some((known) => known === node) ? credentialsOf(node) : undefined),
  });
  const shuttle = yield* openShuttle(testbed, { name: "sealed", memoryBytes, mix: RANDOM, workers: CHANNELS });

  const sampleOf = Effect.fnUntraced(function* (encryption: boolean) {
    const moved = yield* shuttle.pass({ ...UNLIMITED, "multifd-channels": CHANNELS }, { encryption });
    if ((moved.info.encryption !== undefined) !== encryption)
      return yield* Effect.fail(new Error("that was not what was to be measured"));
    const cpu = (carriersOf(moved) * 1024 ** 3) / memoryBytes;
    return { rate: moved.bytes / MIB / moved.seconds, cpu } satisfies Sample;
  });

  const pairs: Array<{ readonly plain: Sample; readonly sealed: Sample }> = [];
  // The first pair warms everybody up, and is not counted.
  for (let pair = 0; pair <= repetitions; pair++) {
    const plain = yield* sampleOf(false);
    const sealed = yield* sampleOf(true);
    progress(
      `${sealed.rate.toFixed(0)} sealed, ${plain.rate.toFixed(0)} plain MiB/s${pair === 0 ? " (warming up)" : ""}`,
    );
    if (pair > 0) pairs.push({ plain, sealed });
  }
  const row = (of: "plain" | "sealed") => [
    median(pairs.map((pair) => pair[of].rate)).toFixed(0),
    median(pairs.map((pair) => pair[of].cpu)).toFixed(2),
  ];
  const rates = spreadOf(pairs.map(({ plain, sealed }) => sealed.rate / plain.rate));
  const costs = spreadOf(pairs.map(({ plain, sealed }) => sealed.cpu / plain.cpu));
  const result: Result = {
    isComplete: true,
    notes: [
      `First pass over ${memoryBytes / MIB} MiB of random pages of an idle builtin guest, ${CHANNELS} channels, with and without capability encryption in turn; medians of ${repetitions} pairs, of the ratios also the least and the most.`,
      "CPU seconds are those of the workers and the loader over the whole migration: who seals, and who opens.",
    ],
    tables: [
      {
        titles: ["", "first pass, MiB/s", "workers and loader, CPU s/GiB"],
        rows: [
          ["plain", ...row("plain")],
          ["sealed", ...row("sealed")],
          ["ratio", showSpread(rates, 2), showSpread(costs, 2)],
        ],
      },
    ],
    figures: { memoryBytes, channels: CHANNELS, pairs },
  };
  return result;
});

export const encryption: Part = { name: "encryption", title: "What encryption costs", run };
