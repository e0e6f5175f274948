import type * as LogLevel from "effect/LogLevel";

/** What GODWIT_LOG_LEVEL may be, most talkative first; `silent` switches the log off. */
export const LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type Level = (typeof LEVELS)[number];

const EFFECT_LEVEL: Record<Level, LogLevel.LogLevel> = {
  trace: "Trace",
  debug: "Debug",
  info: "Info",
  warn: "Warn",
  error: "Error",
  fatal: "Fatal",
  silent: "None",
};

export const toEffect = (level: Level): LogLevel.LogLevel => EFFECT_LEVEL[level];

/** The level of one event. `All` and `None` are thresholds, which no event has. */
export const ofEvent = (level: LogLevel.LogLevel): Exclude<Level, "silent"> =>
  LEVELS.find(
    (candidate): candidate is Exclude<Level, "silent"> => EFFECT_LEVEL[candidate] === level && candidate !== "silent",
  ) ?? "info";

/** Reads a level as an operator writes it; `undefined` when it is none. */
export const parse = (text: string): Level | undefined =>
  LEVELS.find((level) => level === text.trim().toLowerCase()) ?? undefined;
