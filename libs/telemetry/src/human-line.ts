import type { LogRecord } from "./log-record.ts";

/** Fields that stand at the front of the line. */
const FRONT = ["actor", "node", "pid"];
const INDENT = "\n    ";

/**
 * One line for the eye: `12:30:45.123 warn  loader[b] packet refused migration=m1 channel=2`. An error follows the fields; the
 * stack of an unexpected one stands on lines of its own. What a guest or a stranger wrote cannot move the terminal's cursor.
 */
export const humanLine = ({ time, level, message, fields }: LogRecord): string => {
  const who = `${fields["actor"] ?? "?"}[${fields["node"] ?? "?"}]`;
  const rest = Object.entries(fields)
    .filter(([key, value]) => !FRONT.includes(key) && key !== "err" && value !== undefined)
    .map(([key, value]) => ` ${key}=${word(value)}`)
    .join("");
  const clock = time.toISOString().slice(11, 23);
  return `${clock} ${level.padEnd(5)} ${printable(who)} ${printable(message)}${rest}${problem(fields["err"])}\n`;
};

const problem = (error: unknown): string => {
  if (typeof error !== "object" || error === null) return "";
  const { type, message, stack } = error as {
    readonly type?: unknown;
    readonly message?: unknown;
    readonly stack?: unknown;
  };
  const text = typeof stack === "string" ? stack : `${type}: ${typeof message === "string" ? message : word(message)}`;
  return INDENT + printable(text);
};

/** A value without spaces or special characters stands as it is, any other as JSON. */
const word = (value: unknown): string => {
  const text = typeof value === "string" ? value : (JSON.stringify(value) ?? "undefined");
  return typeof value !== "string" || /^[\w.:/@+-]+$/.test(text) ? printable(text) : JSON.stringify(text);
};

/** Line ends are kept, indented; every other control character is shown, not sent. */
const printable = (text: string): string =>
  text
    .replaceAll("\n", INDENT)
    .replace(/(?!\n)\p{Cc}/gu, (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, "0")}`);
