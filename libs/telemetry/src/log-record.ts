import * as Cause from "effect/Cause";
import type * as Logger from "effect/Logger";
import * as References from "effect/References";
import { type Level, ofEvent } from "./level.ts";
import { describeError, plain } from "./plain.ts";

/** One event of the log, before it is written as JSON or for the eye. */
export interface LogRecord {
  readonly time: Date;
  readonly level: Exclude<Level, "silent">;
  readonly message: string;
  /** Who speaks, the annotations in force (`migration`, `channel`, ...), the fields of the message, `err` and `causes`. */
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Names that a line uses itself. */
const RESERVED = ["time", "level", "msg"];

/**
 * Turns what a program logged into a record. Of the arguments of `Effect.logInfo("round done", { round: 2 })` texts are joined to
 * the message, plain objects become fields, an error becomes `err`. Later fields win over annotations, those over `base`.
 */
export const fromEvent = (base: Readonly<Record<string, unknown>>, event: Logger.Options<unknown>): LogRecord => {
  const parts = Array.isArray(event.message) ? event.message : [event.message];
  const fields: Record<string, unknown> = { ...base };
  const add = (more: object): void => {
    for (const [key, value] of Object.entries(more)) fields[RESERVED.includes(key) ? `${key}_` : key] = plain(value);
  };
  add(event.fiber.getRef(References.CurrentLogAnnotations));
  for (const [label, startMs] of event.fiber.getRef(References.CurrentLogSpans)) {
    fields[`${label}Ms`] = event.date.getTime() - startMs;
  }
  const texts: Array<string> = [];
  for (const part of parts) {
    if (part instanceof Error) fields["err"] = describeError(part);
    else if (isRecord(part)) add(part);
    else texts.push(typeof part === "string" ? String(plain(part)) : (JSON.stringify(plain(part)) ?? String(part)));
  }
  addCause(fields, event.cause);
  return { time: event.date, level: ofEvent(event.logLevel), message: texts.join(" "), fields };
};

const addCause = (fields: Record<string, unknown>, cause: Cause.Cause<unknown>): void => {
  if (cause.reasons.length === 0) return;
  // An interruption has no error of its own, and beside a failure it is only what followed from it.
  if (Cause.hasInterruptsOnly(cause)) {
    fields["interrupted"] = true;
    return;
  }
  const errors = cause.reasons.flatMap((reason) =>
    Cause.isFailReason(reason) ? [reason.error] : Cause.isDieReason(reason) ? [reason.defect] : [],
  );
  const described = errors.map((error) =>
    error instanceof Error ? describeError(error) : { type: typeof error, message: plain(error) },
  );
  fields["err"] = described[0];
  if (described.length > 1) fields["causes"] = described;
};

const isRecord = (value: unknown): value is Record<string, unknown> => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
};
