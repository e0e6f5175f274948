/** `godwit`: finds the command, reads the line, runs it. What a command needs is loaded with it: help must not wait for NATS. */
import version from "../package.json" with { type: "json" };
import { commandHelp, generalHelp } from "./arguments/help-text.ts";
import { parseLine, wantsJson } from "./arguments/parse.ts";
import { UsageError } from "./arguments/usage-error.ts";
import { CATALOGUE, type Entry } from "./commands/catalogue.ts";
import { errorText } from "./reporting/error-text.ts";
import { openReport, type Report } from "./reporting/report.ts";

/** Exit code of a line that cannot be read. */
const USAGE = 2;

const entryOf = (name: string): Entry => {
  const entry = Object.hasOwn(CATALOGUE, name) ? CATALOGUE[name] : undefined;
  if (entry !== undefined) return entry;
  throw new UsageError(
    `there is no command ${JSON.stringify(name)}; there are: ${[...Object.keys(CATALOGUE), "help"].join(", ")}`,
  );
};

const showHelp = async (name: string | undefined, report: Report): Promise<number> => {
  const commands = Object.entries(CATALOGUE).map(([command, { summary }]) => [command, summary] as const);
  if (name === undefined) {
    report.answer(
      { commands: commands.map(([command, summary]) => ({ name: command, summary })) },
      generalHelp(commands),
    );
    return 0;
  }
  const entry = entryOf(name);
  const text = commandHelp(name, entry.summary, await entry.load());
  report.answer({ name, summary: entry.summary, help: text }, text);
  return 0;
};

const runCommand = async (name: string, words: ReadonlyArray<string>, report: Report): Promise<number> => {
  const command = await entryOf(name).load();
  const { values, operands, help } = parseLine(name, command, words, process.env);
  if (help) return showHelp(name, report);
  const work = command.run({ values: values as never, operands }, report);
  if (work instanceof Promise) return work;
  const { execute } = await import("./execution.ts");
  return execute(work, report);
};

const run = (words: ReadonlyArray<string>, report: Report): Promise<number> => {
  const [name, ...rest] = words;
  switch (name) {
    case undefined:
      throw new UsageError("a command is missing", "`godwit help` lists the commands");
    case "help":
    case "--help":
    case "-h":
      return showHelp(
        rest.find((word) => !word.startsWith("-")),
        report,
      );
    case "--version":
    case "version":
      report.answer({ "godwit-version": version.version }, `godwit ${version.version}\n`);
      return Promise.resolve(0);
    default:
      return runCommand(name, rest, report);
  }
};

const main = async (words: ReadonlyArray<string>): Promise<number> => {
  const report = openReport(wantsJson(words, process.env));
  let code: number;
  try {
    code = await run(words, report);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    report.answer(
      { error: { code: error.code, actor: "cli", step: "read the line", reason: error.message, remedy: error.remedy } },
      "",
    );
    report.note(errorText(error.code, error.message, error.remedy));
    code = USAGE;
  }
  await report.flushed();
  return code;
};

process.exit(await main(process.argv.slice(2)));
