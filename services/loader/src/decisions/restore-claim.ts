/** Whether a guest may be started from a checkpoint at this node: the same record as for a migration decides, and what nodes say they have. */
import type { Failure, NodeInfo, OwnershipEntry } from "@godwit/protocol";

/** What a node says of a guest that will not run any more, whoever asks it to; one that only does not answer may. */
const OVER = new Set(["gone", "shutdown", "failed"]);

/**
 * Null when it may. The record says where the guest ran last: that node must say itself that it has it no more, or the operator must
 * give his word for it (`takeOver`), since nobody else can know that a host is dead. Whatever was found now is made sure by the
 * compare-and-set on the entry's revision, before the guest runs.
 */
export const mayRestore = (asked: {
  readonly guest: string;
  readonly node: string;
  readonly entry: OwnershipEntry | null;
  /** Those that are up. One with an error could not be asked, and has said nothing of its guests. */
  readonly nodes: ReadonlyArray<NodeInfo>;
  readonly takeOver: boolean;
}): Failure | null => {
  const { guest, node, entry, nodes, takeOver } = asked;
  const refuse = (code: Failure["code"], reason: string): Failure => ({
    code,
    actor: "loader",
    side: "destination",
    step: "claim the guest",
    reason,
  });
  const home = nodes.find(
    (one) => one.node !== node && one.guests.some(({ name, state }) => name === guest && !OVER.has(state)),
  );
  if (home !== undefined)
    return refuse("guest-exists", `node ${home.node} has a guest ${guest}; a guest never runs twice`);
  if (entry === null) return null;
  const { record } = entry;
  // An attempt on its way may start the guest at any moment.
  if (record.open && !takeOver)
    return refuse("migration-in-progress", `guest ${guest} is being moved from node ${record.node}`);
  if (record.node === node || takeOver) return null;
  if (nodes.some((one) => one.node === record.node && one.error === undefined)) return null;
  return refuse(
    "guest-exists",
    `guest ${guest} ran last at node ${record.node}, which does not say whether it has it still; when that copy is gone for good, say so with --take-over`,
  );
};
