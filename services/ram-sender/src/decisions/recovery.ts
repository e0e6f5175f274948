/**
 * What a RAM sender does about a guest when it starts: it trusts nothing from before (O7) and lets the ownership record say
 * who may run the guest. A switchover that its predecessor left behind is taken back; if the destination has won, the copy
 * that stands still here must never run again, and goes.
 */
import type { OwnershipEntry, OwnershipRecord } from "@godwit/protocol";

export type Recovery =
  | { readonly _tag: "Nothing"; readonly why: string }
  /** Nothing now, and it will be known later. */
  | { readonly _tag: "Later"; readonly why: string }
  | {
      readonly _tag: "TakeBack";
      readonly record: OwnershipRecord;
      readonly revision: number;
      readonly resume: boolean;
    }
  /** Pages of the guest are at no other place than here, and the destination runs it: they are to be had until its record is closed. */
  | {
      readonly _tag: "Serve";
      readonly record: Extract<OwnershipRecord, { state: "destination" }>;
      readonly revision: number;
    }
  /** Only for a guest that was stopped for its switchover. `record` is what was read, under an operation id of its own: winning the write proves that the read was not stale (O5). */
  | { readonly _tag: "Discard"; readonly record: OwnershipRecord; readonly revision: number };

export const recover = (entry: OwnershipEntry | null, node: string, op: string): Recovery => {
  if (entry === null) return { _tag: "Nothing", why: "no migration was ever begun" };
  const { record } = entry;
  if (record.state === "destination" && record.node !== node) {
    if (record.open && record.postcopy === true) {
      // Given up: nobody fetches pages from here any more.
      if (record.lost !== undefined) return { _tag: "Discard", record: { ...record, op }, revision: entry.revision };
      return { _tag: "Serve", record, revision: entry.revision };
    }
    // Until it has started there the record is the destination's to write.
    if (record.open) return { _tag: "Nothing", why: `the guest is being started by ${record.node}` };
    return { _tag: "Discard", record: { ...record, op }, revision: entry.revision };
  }
  if (record.state === "destination") return { _tag: "Nothing", why: `the guest belongs to ${record.node}` };
  // It was handed over, and has moved on since; while another migration writes the record, it is left alone.
  if (record.node !== node)
    return record.open
      ? { _tag: "Later", why: `the guest is being moved by ${record.node}` }
      : { _tag: "Discard", record: { ...record, op }, revision: entry.revision };
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
