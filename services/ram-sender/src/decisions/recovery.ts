/**
 * What a RAM sender does about a guest when it starts: it trusts nothing from before (O7) and lets the ownership record say
 * who may run the guest. A switchover that its predecessor left behind is taken back; if the destination has won, the copy
 * that stands still here must never run again, and goes.
 */
import type { OwnershipEntry, OwnershipRecord } from "@godwit/protocol";

export type Recovery =
  | { readonly _tag: "Nothing"; readonly why: string }
  | {
      readonly _tag: "TakeBack";
      readonly record: OwnershipRecord;
      readonly revision: number;
      readonly resume: boolean;
    }
  /** Only for a guest that was stopped for its switchover. `record` is what was read, under an operation id of its own: winning the write proves that the read was not stale (O5). */
  | { readonly _tag: "Discard"; readonly record: OwnershipRecord; readonly revision: number };

export const recover = (entry: OwnershipEntry | null, node: string, op: string): Recovery => {
  if (entry === null) return { _tag: "Nothing", why: "no migration was ever begun" };
  const { record } = entry;
  if (record.state === "destination" && record.node !== node) {
    // Until it has started there the record is the destination's to write.
    if (record.open) return { _tag: "Nothing", why: `the guest is being started by ${record.node}` };
    return { _tag: "Discard", record: { ...record, op }, revision: entry.revision };
  }
  if (record.state === "destination") return { _tag: "Nothing", why: `the guest belongs to ${record.node}` };
  if (record.node !== node) return { _tag: "Nothing", why: `the guest is being moved by ${record.node}` };
  if (!record.open) return { _tag: "Nothing", why: "the last migration was ended properly" };
  return {
    _tag: "TakeBack",
    // The epoch grows: packets and late writes of the predecessor are fenced off.
    record: {
      state: "source",
      epoch: (record.epoch + 1) as OwnershipRecord["epoch"],
      op,
      migration: record.migration,
      node,
      // Open until the guest goes on: a successor that dies before that leaves it to the next.
      open: true,
      wasRunning: record.wasRunning,
    },
    revision: entry.revision,
    resume: record.wasRunning,
  };
};

/** What is written, at the revision of the taking back, once the guest goes on. */
export const settled = (record: OwnershipRecord, op: string): OwnershipRecord => ({ ...record, op, open: false });
