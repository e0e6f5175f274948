/**
 * What a loader does about a guest of its node when it starts: one whose hand-over was committed must run, whoever committed it;
 * one that was on its way here when the migration ended elsewhere must go.
 */
import type { OwnershipEntry, OwnershipRecord } from "@godwit/protocol";

export type Recovery =
  | { readonly _tag: "Nothing" }
  /** The guest runs here, so the record has said that it may: what was read is older than that. */
  | { readonly _tag: "Later" }
  /**
   * Write `record`, which is what was read, under an operation id of its own: winning that proves that the guest is still ours to
   * start (O5). Then start it, and close the record with `closed`.
   */
  | {
      readonly _tag: "Start";
      readonly resume: boolean;
      readonly record: OwnershipRecord;
      readonly closed: OwnershipRecord;
      readonly revision: number;
    }
  /** `record` is what was read, under an operation id of its own: winning the write proves that the read was not stale (O5). */
  | { readonly _tag: "Discard"; readonly record: OwnershipRecord; readonly revision: number };

/** How the guest was found. */
export interface Found {
  /** A migration or a restore filled it that was never committed. While an attempt is on its way (the record is open) it may be of use to it. */
  readonly arriving: boolean;
  /** Under which it arrives; 0: not known. */
  readonly epoch: number;
  readonly running: boolean;
  /** It waits for pages of a postcopy. */
  readonly pagesMissing: boolean;
}

/** The device state was loaded before the record could say `destination`, so a paused guest only needs to be started. */
export const recover = (
  entry: OwnershipEntry | null,
  node: string,
  op: string,
  { arriving, epoch, running, pagesMissing }: Found,
): Recovery => {
  if (entry === null) return { _tag: "Nothing" };
  const { record } = entry;
  if (running && isOlder(record, node)) return { _tag: "Later" };
  const isElsewhere = record.state === "source" && record.node !== node;
  // A restore claims nothing before it commits: the record has never come to the epoch that it would have won.
  if (arriving && !record.open && (isElsewhere || epoch > record.epoch))
    return { _tag: "Discard", record: { ...record, op }, revision: entry.revision };
  if (record.state !== "destination") return { _tag: "Nothing" };
  if (record.node !== node || !record.open) return { _tag: "Nothing" };
  // Whose session is gone is not started any more.
  if (record.givenUp === true) return { _tag: "Nothing" };
  // Closing it would let the source throw away pages that are not here: only the session that fetches them may.
  if (record.postcopy === true && pagesMissing) return { _tag: "Nothing" };
  return {
    _tag: "Start",
    resume: record.wasRunning,
    record: { ...record, op },
    closed: { ...record, op: `${op}-closed`, open: false },
    revision: entry.revision,
  };
};

/** Whether a record is of before the guest was handed over to this node. */
const isOlder = (record: OwnershipRecord, node: string): boolean =>
  record.state === "switching"
    ? record.destination === node
    : record.state === "source" && record.node !== node && record.open;
