/** The fault matrix: actor x fault x phase -> what is promised, and what was measured. */
import { markdownTable, type Table } from "../bench/markdown.ts";
import { ACTORS, COMBINATIONS, type Combination, nameOf, type Shape } from "./fault.ts";
import { promiseOf } from "./promise.ts";
import type { Outcome } from "./run.ts";

export interface MatrixSource {
  readonly outcomes: ReadonlyArray<Outcome>;
  /** The command that measured it, and where: no date, so that the same run writes the same page. */
  readonly command: string;
  readonly machine: string;
}

const median = (values: ReadonlyArray<number>): number | null => {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)]!;
};
const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0);
const known = (values: ReadonlyArray<number | null>): number[] => values.filter((value) => value !== null);
const signed = (value: number | null): string =>
  value === null ? "-" : value >= 0 ? `+${Math.round(value)}` : String(Math.round(value));

/** What a migration of each shape takes when nothing is wrong. */
interface Usual {
  readonly downtimeMs: number | null;
  readonly freeMs: (shape: Shape) => number | null;
}

const usualOf = (outcomes: ReadonlyArray<Outcome>): Usual => {
  const undisturbed = outcomes.filter(({ schedule }) => schedule.faults.length === 0);
  return {
    downtimeMs: median(known(undisturbed.map(({ downtimeMs }) => downtimeMs))),
    freeMs: (shape) =>
      median(undisturbed.filter(({ schedule }) => schedule.shape === shape).map(({ freeMs }) => freeMs)),
  };
};

const MEASURED = [
  "runs",
  "completed",
  "back at source",
  "violations",
  "tried again",
  "re-sent items",
  "re-sent KiB",
  "added downtime, ms",
  "added time, ms",
];

const measured = (runs: ReadonlyArray<Outcome>, usual: Usual): ReadonlyArray<string> => {
  const completed = runs.filter(({ outcome }) => outcome === "completed");
  const downtime = median(known(completed.map(({ downtimeMs }) => downtimeMs)));
  const added = completed.map(({ freeMs, schedule }) => {
    const before = usual.freeMs(schedule.shape);
    return before === null ? null : freeMs - before;
  });
  return [
    runs.length,
    completed.length,
    runs.filter(({ outcome }) => outcome === "back at source").length,
    sum(runs.map(({ violations }) => violations.length)),
    runs.filter(({ attempts }) => attempts > 1).length,
    sum(runs.map(({ resentItems }) => resentItems)),
    Math.round(sum(runs.map(({ resent }) => resent.bytes)) / 1024),
    signed(downtime === null || usual.downtimeMs === null ? null : downtime - usual.downtimeMs),
    signed(median(known(added))),
  ].map(String);
};

/** Runs whose one fault this was, and came. */
const runsOf = (outcomes: ReadonlyArray<Outcome>, combination: Combination): ReadonlyArray<Outcome> =>
  outcomes.filter(
    ({ schedule: { faults }, struck }) =>
      faults.length === 1 && struck[0] === true && nameOf(faults[0]!) === nameOf(combination),
  );

const tableOf = (outcomes: ReadonlyArray<Outcome>, actor: string, usual: Usual): Table => ({
  titles: ["fault, phase", "promised", ...MEASURED],
  rows: COMBINATIONS.filter((combination) => combination.actor === actor).flatMap((combination) => {
    const runs = runsOf(outcomes, combination);
    if (runs.length === 0) return [];
    return [[`${combination.kind}, ${combination.phase}`, promiseOf(combination).text, ...measured(runs, usual)]];
  }),
});

/** The whole in a few lines: by actor, for a terminal. */
export const summaryTable = (outcomes: ReadonlyArray<Outcome>): string => {
  const usual = usualOf(outcomes);
  const single = outcomes.filter(({ schedule, struck }) => schedule.faults.length === 1 && struck[0] === true);
  const rows = ACTORS.map((actor) => [
    actor,
    ...measured(
      single.filter(({ schedule }) => schedule.faults[0]?.actor === actor),
      usual,
    ),
  ]);
  const others = [
    [
      "two faults",
      ...measured(
        outcomes.filter(({ schedule }) => schedule.faults.length > 1),
        usual,
      ),
    ],
    [
      "moment did not come",
      ...measured(
        outcomes.filter(({ schedule, struck }) => schedule.faults.length === 1 && struck[0] !== true),
        usual,
      ),
    ],
    [
      "undisturbed",
      ...measured(
        outcomes.filter(({ schedule }) => schedule.faults.length === 0),
        usual,
      ),
    ],
  ];
  return markdownTable({ titles: ["fault at", ...MEASURED], rows: [...rows, ...others] });
};

/** Runs that ended back at the source where completion is promised. */
export const broken = (outcomes: ReadonlyArray<Outcome>): ReadonlyArray<Outcome> =>
  outcomes.filter(
    ({ schedule: { faults }, outcome }) =>
      outcome !== "completed" && faults.length > 0 && faults.every((fault) => promiseOf(fault).completes),
  );

/** The page `docs/fault-matrix.md`. */
export const matrixPage = ({ outcomes, command, machine }: MatrixSource): string => {
  const usual = usualOf(outcomes);
  const covered = COMBINATIONS.filter((combination) => runsOf(outcomes, combination).length > 0).length;
  const short = broken(outcomes);
  return [
    "# Fault matrix",
    "",
    "What a fault of each actor, in each phase of a migration, does to the guest: what is promised, and what was measured. Written by",
    "",
    `    ${command}`,
    "",
    `on ${machine}. Real processes and a real NATS server on one machine; the guest of 24 MiB goes to and fro between two nodes and writes`,
    "2 MiB/s; it has two VFIO devices, simulated, one of 3 MiB that is moved while it works, and one of 1 MiB that gives nothing before it is stopped. A second guest, without devices, is moved by postcopy, begun at its first pass, or saved over a checkpoint of its own, killed, and restored on the other node, lazily or not. `kill` is SIGKILL (a supervisor starts actors again, NATS comes back on its store within 2 s), `pause` is SIGSTOP for 0.1 to 20 s,",
    "`cut` resets an actor's connections and refuses new ones, `blackhole` leaves them open and lets every byte vanish, both for 0.1 to 30 s.",
    "A fault comes within the turn in which the report or work item of its phase was heard, or up to 30 ms later.",
    "",
    "After each run, whatever its fault: never two copies of the guest ran, also not on the way; one process is left and makes progress, every page of",
    "it is right; each of its devices is RUNNING there, with all that it knew, and no copy of it is left elsewhere; the ownership record is closed and names its node; the migration has ended by itself, with a reason if it did not complete, and",
    "coordinator, source and destination tell the same ending; no process, file or note is left over; the next migration of the guest, which is the",
    "next run, works. Every breach of these is counted as a violation.",
    "",
    `${outcomes.length} runs, ${covered} of ${COMBINATIONS.length} combinations; "tried again": more than one attempt; re-sent are sums; added downtime and time are medians`,
    `of the completed runs over those of undisturbed ones (downtime ${usual.downtimeMs ?? "-"} ms; time counts from when the migration is free to go on).`,
    ...(short.length === 0
      ? ["Wherever completion is promised, it completed."]
      : [
          `Completion was promised and missed in ${short.length}: seeds ${short.map(({ schedule }) => schedule.seed).join(", ")}.`,
        ]),
    "",
    summaryTable(outcomes),
    ...ACTORS.flatMap((actor) => {
      const table = tableOf(outcomes, actor, usual);
      return table.rows.length === 0 ? [] : [`## ${actor}`, "", markdownTable(table)];
    }),
  ].join("\n");
};
