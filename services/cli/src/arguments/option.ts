/** Options of commands: what each may be, and how its text is read. The tables made of them parse the line and write the help. */
import { isSafeName } from "@godwit/protocol";
import { parseSize } from "../terminal/size.ts";
import { parseDuration } from "./duration.ts";
import { UsageError } from "./usage-error.ts";

/** One option. `name` in messages is what the operator wrote: `--memory`, or the variable that stood in for it. */
export interface Option<A> {
  /** For the help: what it does. */
  readonly what: string;
  /** For the help: what stands behind it; null for a flag. */
  readonly value: string | null;
  /** May be given several times; in its variable the values are separated by spaces. */
  readonly repeatable: boolean;
  /** For the help: what holds without it; null when there is nothing to say. */
  readonly shownDefault: string | null;
  /** Another variable than GODWIT_<NAME>, where actors have a name for it already. */
  readonly variable?: string;
  /** Reads the texts given, in order; none when it is absent. Throws a UsageError. */
  readonly read: (texts: ReadonlyArray<string>, name: string) => A;
}

export type OptionTable = Readonly<Record<string, Option<unknown>>>;
export type Values<T extends OptionTable> = { readonly [K in keyof T]: T[K] extends Option<infer A> ? A : never };

const single =
  <A, D>(parse: (text: string, name: string) => A, fallback: D) =>
  (texts: ReadonlyArray<string>, name: string): A | D => {
    const text = texts.at(-1);
    return text === undefined ? fallback : parse(text, name);
  };

const refuse = (name: string, text: string, wanted: string): never => {
  throw new UsageError(`${name} is ${JSON.stringify(text)}, not ${wanted}`);
};

/** A flag that is off unless given. */
export const flag = (what: string): Option<boolean> => ({
  what,
  value: null,
  repeatable: false,
  shownDefault: null,
  read: (texts) => texts.length > 0,
});

/** A text; null when it is absent. */
export const text = (
  value: string,
  what: string,
  more: { readonly variable?: string } = {},
): Option<string | null> => ({
  what,
  value,
  repeatable: false,
  shownDefault: null,
  ...more,
  read: single((given, name) => (given === "" ? refuse(name, given, "a text of at least one character") : given), null),
});

/** What may stand in a subject; null when it is absent. */
export const name = (value: string, what: string): Option<string | null> => ({
  ...text(value, what),
  read: single(
    (given, option) =>
      isSafeName(given) ? given : refuse(option, given, "1 to 64 letters, digits, dashes or underscores"),
    null,
  ),
});

/** A text with a default. */
export const textOr = (
  value: string,
  fallback: string,
  what: string,
  more: { readonly variable?: string } = {},
): Option<string> => ({
  ...text(value, what, more),
  shownDefault: fallback,
  read: (texts, name) => text(value, what).read(texts, name) ?? fallback,
});

/** A whole number from `min` to `max`. */
export const count = (fallback: number, min: number, max: number, what: string): Option<number> => ({
  what,
  value: "N",
  repeatable: false,
  shownDefault: String(fallback),
  read: single(
    (given, name) =>
      /^\d+$/.test(given) && Number(given) >= min && Number(given) <= max
        ? Number(given)
        : refuse(name, given, `a whole number from ${min} to ${max}`),
    fallback,
  ),
});

const bytes = (given: string, name: string): number => {
  const size = parseSize(given);
  if (size._tag === "BadSize") throw new UsageError(`${name}: ${size.reason}`);
  return size.bytes;
};

/** A size (`512MiB`) in bytes; `shownDefault` is read like a value. */
export const size = (shownDefault: string, what: string): Option<number> => ({
  what,
  value: "SIZE",
  repeatable: false,
  shownDefault,
  read: single(bytes, bytes(shownDefault, "default")),
});

/** A size in bytes, null when it is absent. `shownDefault` says what holds then. */
export const sizeIfGiven = (shownDefault: string, what: string): Option<number | null> => ({
  ...size("0", what),
  shownDefault,
  read: single(bytes, null),
});

/** A rate (`50MiB/s`) in bytes per second. */
export const rate = (shownDefault: string, what: string): Option<number> => ({
  ...size(shownDefault, what),
  value: "RATE",
});

/** A rate in bytes per second, null when it is absent. */
export const rateIfGiven = (shownDefault: string, what: string): Option<number | null> => ({
  ...sizeIfGiven(shownDefault, what),
  value: "RATE",
});

/** A duration (`300ms`, `2s`; a number alone is ms) in ms, null when it is absent. */
export const durationIfGiven = (shownDefault: string, what: string): Option<number | null> => ({
  what,
  value: "TIME",
  repeatable: false,
  shownDefault,
  read: single((given, name) => parseDuration(given) ?? refuse(name, given, "a time such as 300ms, 1.5s or 2m"), null),
});

/** Any number of texts. */
export const list = (value: string, what: string): Option<ReadonlyArray<string>> => ({
  what,
  value,
  repeatable: true,
  shownDefault: null,
  read: (texts) => texts,
});
