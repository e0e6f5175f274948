/** What finding the dirty pages costs. */
import { TRACKERS_BY_PREFERENCE, type TrackerKind } from "@godwit/memory";
import { type ScanCost, scanCost } from "@godwit/memory/scan-cost";
import * as Effect from "effect/Effect";
import type { BenchOptions, Part, Result } from "../part.ts";
import { showSpread, spreadOf } from "../samples.ts";

const MIB = 1024 ** 2;
/** The states of memory that a sync may meet, as a table shows them. */
const STATES = [
  ["first sync", "firstMsPerGiB"],
  ["nothing written", "cleanMsPerGiB"],
  ["all written", "allDirtyMsPerGiB"],
  ["every second page", "scatteredMsPerGiB"],
] as const;

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const bytes = (quick ? 64 : 512) * MIB;
  const repetitions = quick ? 1 : 3;
  const measured: { readonly kind: TrackerKind; readonly costs: ReadonlyArray<ScanCost> }[] = [];
  const missing: string[] = [];
  for (const kind of TRACKERS_BY_PREFERENCE) {
    const costs = yield* Effect.result(Effect.replicateEffect(scanCost(kind, bytes), repetitions));
    if (costs._tag === "Success") measured.push({ kind, costs: costs.success });
    else missing.push(`${kind} does not work here: ${costs.failure.message}`);
    progress(kind);
  }
  const result: Result = {
    isComplete: true,
    notes: [
      `One sync over ${bytes / MIB} MiB of another process' memory, ms for each GiB: median, least and most of ${repetitions}; "nothing written" is each time the best of three.`,
      ...missing,
    ],
    tables: [
      {
        titles: ["tracker, ms/GiB", ...STATES.map(([title]) => title)],
        rows: measured.map(({ kind, costs }) => [
          kind,
          ...STATES.map(([, state]) => showSpread(spreadOf(costs.map((cost) => cost[state])), 1)),
        ]),
      },
    ],
    figures: { bytes, measured, missing },
  };
  return result;
});

export const scan: Part = { name: "scan", title: "Cost of a dirty-page scan", run };
