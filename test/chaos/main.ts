// `npm run chaos -- --runs 200 [--seed N] ...`: kills, pauses and cuts off real actors while a guest is moved, and looks what comes of it.
import "../programs.ts";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Finding, runCampaign } from "./campaign.ts";
import { nameOf, type Schedule } from "./fault.ts";
import { broken, matrixPage, summaryTable } from "./matrix.ts";
import type { Outcome } from "./run.ts";
import { type Filter, scheduleOf } from "./schedule.ts";

const RESULTS = fileURLToPath(new URL("../../chaos-results", import.meta.url));
const GIB = 1024 ** 3;

const HELP = `npm run chaos -- [options]
  --runs N       how many; 20
  --seed N       of the first run, the others follow; drawn and shown when absent
  --only TEXT    only faults whose "actor, kind, phase" contains this, e.g. loader or "kill, committing"; may be repeated
  --forgive TEXT a violation that contains this is known, and not told; may be repeated
  --worlds N     so many worlds at once; 1
  --json FILE    every run, with its log
  --write FILE   the fault matrix, as Markdown
  --from FILE    writes the matrix of runs that --json kept, instead of running
`;

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "20" },
    seed: { type: "string" },
    only: { type: "string", multiple: true, default: [] },
    forgive: { type: "string", multiple: true, default: [] },
    worlds: { type: "string", default: "1" },
    json: { type: "string" },
    write: { type: "string" },
    from: { type: "string" },
    help: { type: "boolean" },
  },
});

const whole = (name: string, text: string, min: number): number => {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= min) return value;
  process.stderr.write(`--${name} is "${text}", not a whole number of at least ${min}\n`);
  process.exit(2);
};

const machine = (): string =>
  `${cpus().length} x ${cpus()[0]?.model ?? "unknown"}, ${Math.round(totalmem() / GIB)} GiB, Linux ${release()}, Node ${process.version}`;

const faultsOf = ({ faults, shape, cancels }: Schedule): string => {
  const told = faults.map((fault) => `${nameOf(fault)}${fault.durationMs > 0 ? ` ${fault.durationMs} ms` : ""}`);
  return told.length === 0 ? `undisturbed, ${shape}` : `${told.join(" + ")}${cancels ? ", cancelled" : ""}`;
};

const lineOf = ({
  schedule,
  outcome,
  status,
  error,
  attempts,
  downtimeMs,
  freeMs,
  struck,
  violations,
}: Outcome): string =>
  [
    `seed ${schedule.seed}: ${faultsOf(schedule)}: ${outcome}`,
    schedule.shape === "checkpoint"
      ? `save ${status}`
      : outcome === "completed"
        ? `downtime ${downtimeMs} ms`
        : `${status}, ${error}`,
    `attempts ${attempts}`,
    `${freeMs} ms`,
    ...(struck.every(Boolean) ? [] : ["a moment did not come"]),
    ...(violations.length === 0 ? [] : [`${violations.length} VIOLATIONS`]),
  ].join("; ");

const keep = ({ outcome, actorsLog }: Finding): void => {
  mkdirSync(RESULTS, { recursive: true });
  const file = join(RESULTS, `seed-${outcome.schedule.seed}.txt`);
  const { log, violations, ...rest } = outcome;
  const parts = [JSON.stringify(rest, null, 2), ...violations, "", ...log, "", actorsLog ?? ""];
  writeFileSync(file, parts.join("\n"));
  process.stdout.write(
    [...violations.map((line) => `    ${line}`), ...log.map((line) => `      ${line}`), `    kept in ${file}`, ""].join(
      "\n",
    ),
  );
};

interface Report {
  readonly command: string;
  readonly machine: string;
  readonly outcomes: ReadonlyArray<Outcome>;
}

/** The end of it: the files that were asked for, the table, and the exit. */
const tell = (report: Report, brokenWorlds: number): void => {
  const { outcomes } = report;
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
  if (values.write !== undefined) writeFileSync(values.write, matrixPage(report));
  process.stdout.write(`\n${summaryTable(outcomes)}\n`);
  const short = broken(outcomes);
  if (short.length > 0)
    process.stdout.write(`not completed as promised: seeds ${short.map(({ schedule }) => schedule.seed).join(", ")}\n`);
  const violations = outcomes.reduce((sum, outcome) => sum + outcome.violations.length, 0);
  process.stdout.write(`${outcomes.length} runs, ${violations} violations, ${brokenWorlds} broken worlds\n`);
  if (violations + brokenWorlds > 0) process.exitCode = 1;
};

const main = async (): Promise<void> => {
  if (values.help) return void process.stdout.write(HELP);
  if (values.from !== undefined) return tell(JSON.parse(readFileSync(values.from, "utf8")) as Report, 0);
  const runs = whole("runs", values.runs, 1);
  const worlds = whole("worlds", values.worlds, 1);
  const firstSeed = values.seed === undefined ? Math.floor(Math.random() * 1e9) : whole("seed", values.seed, 0);
  const filter: Filter = (combination) =>
    values.only.length === 0 || values.only.some((text) => nameOf(combination).includes(text));
  const schedules = Array.from({ length: runs }, (_, at) => scheduleOf(firstSeed + at, filter));
  const only = values.only.map((text) => ` --only "${text}"`).join("");
  const command = `npm run chaos -- --runs ${runs} --seed ${firstSeed}${only}`;
  process.stdout.write(`${machine()}\n${command}\n`);
  const outcomes: Outcome[] = [];
  let brokenWorlds = 0;
  let stopped = false;
  // Guests outlive their starter: who ends this must let it tidy.
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      stopped = true;
      process.stderr.write("ending after the runs that are under way\n");
    });
  }
  await runCampaign({
    schedules,
    worlds,
    isKnown: (violation) => values.forgive.some((text) => violation.includes(text)),
    found: (finding) => {
      outcomes.push(finding.outcome);
      process.stdout.write(`${lineOf(finding.outcome)}\n`);
      if (finding.outcome.violations.length > 0) keep(finding);
    },
    broke: (schedule, reason) => {
      brokenWorlds++;
      process.stdout.write(`seed ${schedule.seed}: ${faultsOf(schedule)}: THE WORLD BROKE: ${reason}\n`);
    },
    isOver: () => stopped,
  });
  tell({ command, machine: machine(), outcomes }, brokenWorlds);
};

await main();
