/** What has become of all migrations, and of the guest after each. */

export interface Trial {
  readonly status: "completed" | "failed" | "cancelled" | "stuck" | "refused";
  readonly attempts: number;
  readonly totalMs: number;
  /** Null: the guest was not handed over. */
  readonly downtimeMs: number | null;
  /** The error's code and reason when it was not completed. */
  readonly error: string | null;
  /** What must never be, a line each. */
  readonly violations: ReadonlyArray<string>;
}

const median = (values: ReadonlyArray<number>): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** The same as numbers, for programs. */
export const tallyOf = (trials: ReadonlyArray<Trial>, kills: number) => {
  const count = (status: Trial["status"]): number => trials.filter((trial) => trial.status === status).length;
  const completed = trials.filter(({ status }) => status === "completed");
  return {
    migrations: trials.length,
    completed: count("completed"),
    "back-at-source": count("failed") + count("cancelled"),
    refused: count("refused"),
    stuck: count("stuck"),
    attempts: trials.reduce((sum, { attempts }) => sum + attempts, 0),
    "workers-killed": kills,
    "total-time-median-ms": Math.round(median(completed.map(({ totalMs }) => totalMs))),
    "downtime-median-ms": Math.round(median(completed.flatMap(({ downtimeMs }) => downtimeMs ?? []))),
    violations: trials.flatMap((trial, at) => trial.violations.map((line) => `migration ${at + 1}: ${line}`)),
  };
};

export const tallyText = ({ violations, ...numbers }: ReturnType<typeof tallyOf>): string => {
  const rows = [...Object.entries(numbers), ["violations", violations.length] as const];
  return [
    ...rows.map(([name, value]) => `${name.padEnd(22)} ${value}`),
    ...violations.map((line) => `  ${line}`),
    "",
  ].join("\n");
};
