/** When a fault comes: with which sign of the migration a phase shows, and the wait for it. */
import type { Moment } from "./fault.ts";
import type { Sign, Witness } from "./witness.ts";

/** What has been seen of one migration so far. */
interface Progress {
  /** The guest has been stopped: what is sent now is the last round. */
  stopped: boolean;
}

/** Whether the sign belongs to the phase. */
const SHOWS: Record<Moment["phase"], (sign: Sign, progress: Progress) => boolean> = {
  setup: (sign) =>
    sign._tag === "Source"
      ? sign.report.phase === "claiming" || sign.report.phase === "claimed"
      : sign._tag === "Destination" && (sign.report.phase === "preparing" || sign.report.phase === "ready"),
  "first pass": (sign, { stopped }) => sign._tag === "Work" && sign.round === 1 && !stopped,
  "later pass": (sign, { stopped }) => sign._tag === "Work" && sign.round > 1 && !stopped,
  "pre-switchover": (sign) => sign._tag === "Source" && sign.report.phase === "pre-switchover",
  stopping: (sign) => sign._tag === "Source" && sign.report.phase === "stopping",
  switching: (sign, { stopped }) =>
    (sign._tag === "Source" && sign.report.phase === "switching") || (sign._tag === "Work" && stopped),
  loading: (sign) => sign._tag === "Destination" && sign.report.phase === "loading",
  committing: (sign) => sign._tag === "Destination" && sign.report.phase === "committing",
  postcopy: (sign) => sign._tag === "Destination" && sign.report.phase === "postcopy",
  running: (sign) => sign._tag === "Destination" && sign.report.phase === "running",
  saving: (sign) => sign._tag === "File" && sign.kind === "store",
  restoring: (sign) => sign._tag === "File" && sign.kind === "fill",
  paging: (sign) => sign._tag === "Paging",
};

/** The migration, save or restore that it is of. */
export const ownerOf = (sign: Sign): string => {
  switch (sign._tag) {
    case "Source":
    case "Destination":
      return sign.report.migration;
    case "Work":
      return sign.migration;
    case "File":
    case "Paging":
      return sign.id;
  }
};

const note = (progress: Progress, sign: Sign): void => {
  if (sign._tag === "Source" && (sign.report.phase === "stopping" || sign.report.phase === "switching"))
    progress.stopped = true;
};

/**
 * Calls `act` once, within the turn in which the nth sign of the phase came. `isOurs` tells a migration that was just asked for by
 * not being an earlier one: its first signs come before the answer. Returns how to give up.
 */
export const atSign = (
  witness: Witness,
  isOurs: (migration: string) => boolean,
  { phase, sign: nth }: Moment,
  act: () => void,
): (() => void) => {
  const progress: Progress = { stopped: false };
  let count = 0;
  const giveUp = witness.onSign((sign) => {
    if (!isOurs(ownerOf(sign))) return;
    note(progress, sign);
    if (!SHOWS[phase](sign, progress)) return;
    count++;
    if (count < nth) return;
    giveUp();
    act();
  });
  return giveUp;
};
