/** Help, made of the tables that also parse. */
import { table } from "../terminal/table.ts";
import type { Command } from "./command.ts";
import type { Option } from "./option.ts";
import { SHARED_OPTIONS, variableOf } from "./parse.ts";

const INDENT = "  ";

const indented = (text: string): string => text.replace(/^(?=.)/gm, INDENT);

const COLUMNS = [{ title: "" }, { title: "" }, { title: "" }];
/** A table without its titles. */
const rows = (lines: ReadonlyArray<ReadonlyArray<string>>): string =>
  indented(table(COLUMNS.slice(0, lines[0]?.length), lines).replace(/^.*\n/, ""));

const optionRow = ([name, option]: [string, Option<unknown>]): ReadonlyArray<string> => [
  option.value === null ? `--${name}` : `--${name} ${option.value}`,
  name === "help" ? "" : variableOf(name, option),
  option.shownDefault === null ? option.what : `${option.what} (default ${option.shownDefault})`,
];

/** What `godwit help COMMAND` prints. */
export const commandHelp = (name: string, summary: string, command: Command): string =>
  [
    `godwit ${name} ${command.operands.usage}`.trim(),
    "",
    summary,
    "",
    "Options, and the environment variables that stand in for them:",
    rows(Object.entries({ ...command.options, ...SHARED_OPTIONS }).map(optionRow)),
    ...(command.notes === undefined ? [] : [command.notes()]),
  ].join("\n");

/** What `godwit help` prints. */
export const generalHelp = (commands: ReadonlyArray<readonly [name: string, summary: string]>): string =>
  [
    "godwit: live migration of running virtual machines",
    "",
    "Usage: godwit COMMAND [OPTIONS]",
    "",
    rows(commands),
    "`godwit help COMMAND` shows its options. Every option has an environment variable, GODWIT_<OPTION>.",
    "NATS is found by --nats or GODWIT_NATS. --json prints one JSON document on stdout.",
    "Exit codes: 0 what was asked for happened (and was verified), 1 it did not, 2 the request is wrong, 130 Ctrl-C.",
    "",
  ].join("\n");
