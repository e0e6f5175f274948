import type { GodwitError } from "@godwit/protocol";
import type * as Effect from "effect/Effect";
import type { Report } from "../reporting/report.ts";
import type { OptionTable, Values } from "./option.ts";

/** What stands behind a command's name besides its options. */
export interface Operands {
  /** As the help shows them: `GUEST`, `[MIGRATION]`. */
  readonly usage: string;
  readonly min: number;
  readonly max: number;
}

/** How a command ended that did what it could. */
export interface Outcome {
  /** What `--json` prints. */
  readonly document: unknown;
  /** What is printed without it, whole lines; empty when all has been said. */
  readonly text: string;
  /** Present when what was asked for did not happen; the document says so, too. */
  readonly failure?: GodwitError;
}

/** A command of the command line. Every one has `--json` and `--help` besides the options in its table. */
export interface Command<T extends OptionTable = OptionTable> {
  readonly operands: Operands;
  readonly options: T;
  /** Paragraphs at the end of its help. */
  readonly notes?: () => string;
  /** May throw a UsageError before it starts anything. A promise is of the exit code, when everything has been shown: for what must start quickly. */
  readonly run: (
    input: { readonly values: Values<T>; readonly operands: ReadonlyArray<string> },
    report: Report,
  ) => Effect.Effect<Outcome, GodwitError> | Promise<number>;
}

export const NO_OPERANDS: Operands = { usage: "", min: 0, max: 0 };
export const ONE_MIGRATION: Operands = { usage: "[MIGRATION]", min: 0, max: 1 };

/** Keeps the types of the table for `run`, and forgets them for whoever lists commands. */
export const command = <T extends OptionTable>(definition: Command<T>): Command => definition as unknown as Command;
