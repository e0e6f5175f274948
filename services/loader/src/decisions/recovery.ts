/** What a loader does about a guest of its node when it starts: one whose hand-over was committed must run, whoever committed it. */
import type { OwnershipEntry, OwnershipRecord } from "@godwit/protocol";

export type Recovery =
  | { readonly _tag: "Nothing" }
  /** Start the guest, then close the record. */
  | { readonly _tag: "Start"; readonly resume: boolean; readonly closed: OwnershipRecord; readonly revision: number };

/** The device state was loaded before the record could say `destination`, so a paused guest only needs to be started. */
export const recover = (entry: OwnershipEntry | null, node: string, op: string): Recovery => {
  if (entry === null || entry.record.state !== "destination") return { _tag: "Nothing" };
  if (entry.record.node !== node || !entry.record.open) return { _tag: "Nothing" };
  return {
    _tag: "Start",
    resume: entry.record.wasRunning,
    closed: { ...entry.record, op, open: false },
    revision: entry.revision,
  };
};
