/** What is said once a migration has ended: both sides hear how, and whoever does not know yet that it is over is told to stop. */
import type { DestinationReport, Epoch, SourceReport } from "@godwit/protocol";
import { infoOf } from "./info.ts";
import type { Migration } from "./migration-state.ts";
import { type Emit, failure, header } from "./moves.ts";

/** Both sides show the same ending (R10). Until it is saved they keep it: a successor may have to ask them. */
export const sayConclusion = (migration: Migration, now: number, emit: Emit): void => {
  const conclusion = { _tag: "Conclude", ...header(migration), info: infoOf(migration, now) } as const;
  emit({ _tag: "ToSource", command: conclusion });
  emit({ _tag: "ToDestination", command: conclusion });
};

/** A source that wakes up, or has not heard, is told to stop; one that says how it ended has not heard the conclusion. */
export const answerSource = (migration: Migration, { phase, attempt }: SourceReport, now: number, emit: Emit): void => {
  if (phase === "unknown") return;
  if (phase === "completed" || phase === "failed") return sayConclusion(migration, now, emit);
  emit({ _tag: "ToSource", command: { _tag: "Abort", ...header(migration), attempt, failure: whyOver(migration) } });
};

/** The same for the destination: the word to abandon may have been lost with the coordinator that said it. */
export const answerDestination = (
  migration: Migration,
  { phase, epoch }: DestinationReport,
  now: number,
  emit: Emit,
): void => {
  if (phase === "running" || phase === "failed") return sayConclusion(migration, now, emit);
  const isCompleted = migration.phase._tag === "Ended" && migration.phase.status === "completed";
  if (phase === "unknown" || isCompleted) return;
  emit({
    _tag: "ToDestination",
    command: { _tag: "Abandon", ...header(migration), epoch: epoch as Epoch, failure: whyOver(migration) },
  });
};

const whyOver = (migration: Migration) => migration.failure ?? failure("fenced", "migrate", "the migration has ended");
