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
  notes: [`skipped: ${reason}`],
  tables: [],
  figures: { skipped: reason },
});
