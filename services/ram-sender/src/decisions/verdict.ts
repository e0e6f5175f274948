/** The coordinator's word on how precopy goes on: another round, the switchover, or postcopy. */
import type { Emit } from "./ending.ts";
import * as Precopy from "./precopy.ts";
import type { Source, SourceEvent } from "./source-state.ts";
import * as Switchover from "./switchover.ts";

/** What was asked for with the sync of this round. */
export const judged = (
  source: Source,
  { epoch, round, verdict }: Extract<SourceEvent, { _tag: "Verdict" }>,
  emit: Emit,
): void => {
  const { phase } = source;
  if (phase._tag !== "Precopy" || phase.scanning || phase.verdict !== "asked") return;
  if (epoch !== source.epoch || round !== source.ledger.round) return;
  if (verdict !== "iterate") {
    source.postcopy = verdict === "start-postcopy";
    return Switchover.stop(source, emit);
  }
  source.verdictWanted = null;
  source.phase = { ...phase, verdict: "iterate" };
};

/**
 * Unasked, in the middle of a round: what it has not sent, or not heard of, is missing then. A sync that is under way ends first: what
 * it has found is noted nowhere else any more.
 */
export const startPostcopy = (source: Source, epoch: number, emit: Emit): void => {
  const { phase } = source;
  if (phase._tag !== "Precopy" || epoch !== source.epoch || !source.capabilities["postcopy-ram"]) return;
  source.postcopy = true;
  if (!phase.scanning) Switchover.stop(source, emit);
};

export const synced = (
  source: Source,
  { dirtyPages, syncMs }: Extract<SourceEvent, { _tag: "Synced" }>,
  now: number,
  emit: Emit,
): void => {
  Precopy.synced(source, dirtyPages, syncMs, now, emit);
  if (source.postcopy) Switchover.stop(source, emit);
};
