import { isatty } from "node:tty";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Logger from "effect/Logger";
import * as References from "effect/References";
import type * as Scope from "effect/Scope";
import pino from "pino";
import { humanLine } from "./human-line.ts";
import { LEVELS, type Level, parse, toEffect } from "./level.ts";
import { fromEvent, type LogRecord } from "./log-record.ts";

/** Where lines go, each with its line end. `write` must not throw. */
export interface Destination {
  readonly write: (line: string) => void;
}

/** `json`: one JSON object a line, for machines. `pretty`: one line for the eye. */
export type Format = "json" | "pretty";

export interface LogOptions {
  readonly actor: string;
  readonly node: string;
  /** In force unless GODWIT_LOG_LEVEL names another; default `info`. */
  readonly level?: Level;
  /** Default: stderr. */
  readonly destination?: Destination;
  /** In force unless GODWIT_LOG_FORMAT names another; default `pretty` on a terminal, else `json`. */
  readonly format?: Format;
  /** Where GODWIT_LOG_LEVEL and GODWIT_LOG_FORMAT are looked up; default: this process's environment. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

const STDERR = 2;
/**
 * Lines that stderr's reader has not taken yet, bytes; what comes on top is lost. A supervisor that stops reading must neither
 * stop an actor in the middle of a switchover nor fill its memory.
 */
const BACKLOG_BYTES_MAX = 1024 * 1024;

/**
 * Replaces Effect's loggers by the log of this actor. Its lines carry `time`, `level`, `actor`, `node`, `pid`, the annotations in
 * force and `msg`. Passwords in URLs are blanked out. The scope's end writes out what is still in memory.
 */
export const layer = (options: LogOptions): Layer.Layer<never> => {
  const environment = options.environment ?? process.env;
  const [level, badLevel] = choice(environment["GODWIT_LOG_LEVEL"], parse, options.level ?? "info");
  const usualFormat = options.format ?? (options.destination === undefined && isatty(STDERR) ? "pretty" : "json");
  const [format, badFormat] = choice(environment["GODWIT_LOG_FORMAT"], parseFormat, usualFormat);
  const base = { actor: options.actor, node: options.node, pid: process.pid };

  const logger = Effect.map(options.destination ? Effect.succeed(options.destination) : stderr, (destination) => {
    const write = format === "json" ? jsonWriter(destination) : prettyWriter(destination);
    const complain = (name: string, value: string, known: ReadonlyArray<string>): void =>
      write({
        time: new Date(),
        level: "warn",
        message: `${name}=${JSON.stringify(value)} is none of ${known.join(", ")}: ignored`,
        fields: base,
      });
    if (badLevel !== undefined) complain("GODWIT_LOG_LEVEL", badLevel, LEVELS);
    if (badFormat !== undefined) complain("GODWIT_LOG_FORMAT", badFormat, FORMATS);
    return Logger.make((event: Logger.Options<unknown>) => write(fromEvent(base, event)));
  });
  return Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, toEffect(level)));
};

const FORMATS: ReadonlyArray<Format> = ["json", "pretty"];
const parseFormat = (text: string): Format | undefined =>
  FORMATS.find((format) => format === text.trim().toLowerCase());

/** The operator's choice and, when it is not a choice at all, what was written. Empty counts as unset. */
const choice = <A>(text: string | undefined, read: (text: string) => A | undefined, usual: A): [A, string?] => {
  if (text === undefined || text.trim() === "") return [usual];
  const chosen = read(text);
  return chosen === undefined ? [usual, text] : [chosen];
};

const stderr: Effect.Effect<Destination, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const destination = pino.destination({ dest: STDERR, sync: false, maxLength: BACKLOG_BYTES_MAX });
    // A full disk behind stderr, or a reader that went away: there is no place left to say so, and the guest matters more.
    destination.on("error", () => {});
    return destination;
  }),
  (destination) => Effect.sync(() => destination.flushSync()),
);

const jsonWriter = (destination: Destination): ((record: LogRecord) => void) => {
  const log = pino(
    {
      level: "trace",
      base: null,
      timestamp: false,
      formatters: { level: (label) => ({ level: label }) },
      // The stock serializer takes anything with a message for an Error and describes it anew.
      serializers: { err: (described: unknown) => described },
    },
    { write: (line) => destination.write(withoutPasswords(line)) },
  );
  return ({ time, level, message, fields }) => log[level]({ time: time.toISOString(), ...fields }, message);
};

const prettyWriter =
  (destination: Destination) =>
  (record: LogRecord): void =>
    destination.write(withoutPasswords(humanLine(record)));

/** NATS URLs may hold credentials (`nats://user:password@host`), and find their way into error messages. */
const withoutPasswords = (line: string): string =>
  line.includes("@") ? line.replace(/(\w:\/\/)[^\s/@"]+@/g, "$1***@") : line;
