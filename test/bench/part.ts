/** One question that the bench answers. */
import type * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { Table } from "./markdown.ts";

export interface BenchOptions {
  /** Smaller guests and fewer repetitions: shows that it runs, not how fast. */
  readonly quick: boolean;
  /** What goes on, for somebody who waits. */
  readonly progress: (line: string) => void;
}

export interface Result {
  /** False: something went wrong, and the notes say what. A part that is skipped is complete. */
  readonly isComplete: boolean;
  /** What was measured and how, one sentence each; what would mislead without being said. */
  readonly notes: ReadonlyArray<string>;
  readonly tables: ReadonlyArray<Table>;
  /** The same and more for programs. */
  readonly figures: unknown;
}

export interface Part {
  readonly name: string;
  readonly title: string;
  readonly run: (options: BenchOptions) => Effect.Effect<Result, unknown, Scope.Scope>;
}

/** A part that cannot be measured here. */
export const skipped = (reason: string): Result => ({
  isComplete: true,
  notes: [`skipped: ${reason}`],
  tables: [],
  figures: { skipped: reason },
});

/** A part in which something went wrong. */
export const failed = (error: unknown): Result => {
  const reason = error instanceof Error ? error.message : String(error);
  return { isComplete: false, notes: [`failed: ${reason}`], tables: [], figures: { failed: reason } };
};
