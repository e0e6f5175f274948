/**
 * Settles one compare-and-set whose answer may be lost (O5): it is repeated until it is known to have been won or lost.
 * Pure: the shell carries out `write` and `read` and hands back what came.
 *
 * Why it is safe: the write names one revision, so it can take effect at most once however often it is repeated; a repeat that is
 * refused proves nothing, so the register is read, and only our own operation id there, or a revision newer than the one we
 * named, ends the matter. A read that shows an older revision is stale and leads to another write, never to a decision.
 */
import type { OwnershipEntry, OwnershipRecord } from "./ownership.ts";

export interface Settlement {
  readonly record: OwnershipRecord;
  /** The revision the write names; 0 creates. */
  readonly revision: number;
}

export type SettlementEvent =
  | {
      readonly _tag: "Written";
      readonly op: string;
      readonly outcome: "Unknown" | "Lost" | { readonly revision: number };
    }
  | { readonly _tag: "Read"; readonly op: string; readonly entry: OwnershipEntry | null | "Unknown" };

export type SettlementNext =
  | { readonly _tag: "Write"; readonly after: "at once" | "a pause" }
  | { readonly _tag: "Read"; readonly after: "at once" | "a pause" }
  | { readonly _tag: "Won"; readonly revision: number }
  | { readonly _tag: "Lost"; readonly to: OwnershipEntry };

/** What to do next. Events of another operation are the caller's to drop (`event.op`). */
export const settle = (settlement: Settlement, event: SettlementEvent): SettlementNext => {
  if (event._tag === "Written") {
    if (event.outcome === "Unknown") return { _tag: "Write", after: "a pause" };
    if (event.outcome === "Lost") return { _tag: "Read", after: "at once" };
    return { _tag: "Won", revision: event.outcome.revision };
  }
  if (event.entry === "Unknown") return { _tag: "Read", after: "a pause" };
  if (event.entry === null) return { _tag: "Write", after: "a pause" };
  if (event.entry.record.op === settlement.record.op) return { _tag: "Won", revision: event.entry.revision };
  if (event.entry.revision > settlement.revision) return { _tag: "Lost", to: event.entry };
  return { _tag: "Write", after: "a pause" };
};
