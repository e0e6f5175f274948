// `npm run chaos -- --runs 200 [--seed N] ...`: kills, pauses and cuts off real actors while a guest is moved, and looks what comes of it.
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Finding, runCampaign } from "./campaign.ts";
import { nameOf, type Schedule } from "./fault.ts";
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

const lineOf = ({ schedule, outcome, status, error, attempts, downtimeMs, freeMs, struck, violations }: Outcome): string =>
  [
    `seed ${schedule.seed}: ${faultsOf(schedule)}: ${outcome}`,
    outcome === "completed" ? `downtime ${downtimeMs} ms` : `${status}, ${error}`,
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
    [...violations.map((line) => `    ${line}`), ...log.map((line) => `      ${line}`), `    kept in ${file}`, ""].join("\n"),
  );
};

const main = async (): Promise<void> => {
  if (values.help) return void process.stdout.write(HELP);
  const runs = whole("runs", values.runs, 1);
  const firstSeed = values.seed === undefined ? Math.floor(Math.random() * 1e9) : whole("seed", values.seed, 0);
  const filter: Filter = (combination) =>
    values.only.length === 0 || values.only.some((text) => nameOf(combination).includes(text));
  const schedules = Array.from({ length: runs }, (_, at) => scheduleOf(firstSeed + at, filter));
  process.stdout.write(`${machine()}; ${runs} runs from seed ${firstSeed}\n`);
  const outcomes: Outcome[] = [];
  let broken = 0;
  let stopped = false;
  process.once("SIGINT", () => {
    stopped = true;
    process.stderr.write("ending after the runs that are under way\n");
  });
  await runCampaign({
    schedules,
    isKnown: (violation) => values.forgive.some((text) => violation.includes(text)),
    worlds: whole("worlds", values.worlds, 1),
    found: (finding) => {
      outcomes.push(finding.outcome);
      process.stdout.write(`${lineOf(finding.outcome)}\n`);
      if (finding.outcome.violations.length > 0) keep(finding);
    },
    broke: (schedule, reason) => {
      broken++;
      process.stdout.write(`seed ${schedule.seed}: ${faultsOf(schedule)}: THE WORLD BROKE: ${reason}\n`);
    },
    isOver: () => stopped,
  });
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine: machine(), outcomes }, null, 2)}\n`);
  const violations = outcomes.reduce((sum, outcome) => sum + outcome.violations.length, 0);
  process.stdout.write(`${outcomes.length} runs, ${violations} violations, ${broken} broken worlds\n`);
  if (violations + broken > 0) process.exitCode = 1;
};

await main();
