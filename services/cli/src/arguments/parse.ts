/** From the words of the line, and the variables of the environment, to the values of a command's options. */
import { parseArgs } from "node:util";
import type { Command } from "./command.ts";
import { flag, type Option, type OptionTable } from "./option.ts";
import { UsageError } from "./usage-error.ts";

/** What every command has. */
export const SHARED_OPTIONS = {
  json: flag("print one JSON document on stdout and nothing else"),
  help: flag("show this help"),
} as const;

type Environment = Readonly<Record<string, string | undefined>>;

/** The variable that stands in for an option. */
export const variableOf = (name: string, option: Option<unknown>): string =>
  option.variable ?? `GODWIT_${name.toUpperCase().replaceAll("-", "_")}`;

const TRUE = ["1", "true", "on", "yes"];
const FALSE = ["0", "false", "off", "no"];

/** What a variable says, as if it had been given on the line. Empty counts as unset. */
const fromVariable = (variable: string, value: string | undefined, option: Option<unknown>): ReadonlyArray<string> => {
  if (value === undefined || value.trim() === "") return [];
  if (option.repeatable) return value.trim().split(/\s+/);
  if (option.value !== null) return [value];
  const word = value.trim().toLowerCase();
  if (TRUE.includes(word)) return [word];
  if (FALSE.includes(word)) return [];
  throw new UsageError(`${variable} is ${JSON.stringify(value)}, not one of ${[...TRUE, ...FALSE].join(", ")}`);
};

/** Whether the operator wants JSON, before anything else about the line is known: errors in it are shown that way, too. */
export const wantsJson = (words: ReadonlyArray<string>, environment: Environment): boolean => {
  const options = words.includes("--") ? words.slice(0, words.indexOf("--")) : words;
  if (options.includes("--json")) return true;
  try {
    return fromVariable("GODWIT_JSON", environment["GODWIT_JSON"], SHARED_OPTIONS.json).length > 0;
  } catch {
    // The complaint comes with the parse.
    return false;
  }
};

export interface ParsedLine {
  readonly values: Readonly<Record<string, unknown>>;
  readonly operands: ReadonlyArray<string>;
  readonly help: boolean;
}

/** Throws a UsageError that names the word, or the variable, and what it should be. */
export const parseLine = (
  name: string,
  { options, operands }: Command,
  words: ReadonlyArray<string>,
  environment: Environment,
): ParsedLine => {
  const table: OptionTable = { ...options, ...SHARED_OPTIONS };
  const line = splitLine(name, table, words);
  if (line.given("help").length > 0) return { values: {}, operands: [], help: true };
  const values = Object.fromEntries(
    Object.entries(table).map(([option, definition]) => {
      const given = line.given(option);
      if (given.length > 0) return [option, definition.read(given, `--${option}`)];
      const variable = variableOf(option, definition);
      return [option, definition.read(fromVariable(variable, environment[variable], definition), variable)];
    }),
  );
  const wanted = `godwit ${name} ${operands.usage}`.trim();
  if (line.operands.length < operands.min) throw new UsageError(`something is missing: ${wanted}`, advice(name));
  if (line.operands.length > operands.max) {
    throw new UsageError(`${JSON.stringify(line.operands[operands.max])} is too much: ${wanted}`, advice(name));
  }
  return { values, operands: line.operands, help: false };
};

const advice = (name: string): string => `\`godwit help ${name}\` shows how it is used`;

const splitLine = (name: string, table: OptionTable, words: ReadonlyArray<string>) => {
  const config = Object.fromEntries(
    Object.entries(table).map(([option, { value }]) => [
      option,
      {
        type: value === null ? ("boolean" as const) : ("string" as const),
        multiple: true,
        ...(option === "help" ? { short: "h" } : {}),
      },
    ]),
  );
  try {
    const { values, positionals } = parseArgs({ args: [...words], options: config, allowPositionals: true });
    const given = (option: string): ReadonlyArray<string> =>
      ((values[option] ?? []) as ReadonlyArray<string | boolean>).map(String);
    return { given, operands: positionals };
  } catch (error) {
    // Node's first sentence says what is wrong; the next ones are about its own API.
    const [reason = ""] = (error as Error).message.split(/\. |\n/);
    throw new UsageError(reason, advice(name));
  }
};
