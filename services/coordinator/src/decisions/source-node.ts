/** Which node a guest is moved away from, by what the nodes have answered. */
import type { ErrorCode, NodeInfo } from "@godwit/protocol";

/** States in which a guest can be moved away; elsewhere it is a destination, or dead. */
const MOVABLE = new Set(["running", "paused"]);
/** That of a destination. */
const WAITS = "incoming";

export interface Asked {
  readonly node: string;
  /** Null when it did not answer in time. */
  readonly info: NodeInfo | null;
  /** Why it could not be asked at all: it speaks another version. */
  readonly versionObstacle: string | null;
}

export type SourceChoice =
  | { readonly _tag: "Found"; readonly node: string; readonly driver: string }
  | { readonly _tag: "NotFound"; readonly code: ErrorCode; readonly reason: string };

/**
 * The node that has the guest running or paused; failing that, one that has it in another state, whose own word on it says what is the matter. That second
 * answer, and the one that nobody has it, are given only when every node was heard: what one that was not heard has may be the guest itself.
 * One that waits for the guest is no source: where the guest runs is a node that is not up, or nowhere.
 */
export const chooseSource = (guest: string, all: ReadonlyArray<Asked>): SourceChoice => {
  const found = all.flatMap(({ node, info }) =>
    (info?.guests ?? []).filter(({ name }) => name === guest).map(({ driver, state }) => ({ node, driver, state })),
  );
  const movable = found.find(({ state }) => MOVABLE.has(state));
  if (movable !== undefined) return { _tag: "Found", node: movable.node, driver: movable.driver };
  const silent = all.filter(({ info, versionObstacle }) => info === null && versionObstacle === null);
  if (silent.length > 0) {
    const names = silent.map(({ node }) => node).join(", ");
    return { _tag: "NotFound", code: "node-silent", reason: `guest ${guest} may be at ${names}, which did not answer` };
  }
  const first = found.find(({ state }) => state !== WAITS);
  if (first !== undefined) return { _tag: "Found", node: first.node, driver: first.driver };
  const [waiting] = found;
  const known = waiting === undefined ? "" : `guest ${guest} is waited for at node ${waiting.node}; `;
  const foreign = all.find(({ versionObstacle }) => versionObstacle !== null);
  if (foreign !== undefined) {
    const reason = `${known}no node that this coordinator can ask has a guest ${guest} to move; ${foreign.versionObstacle}`;
    return { _tag: "NotFound", code: "version-mismatch", reason };
  }
  const names = all.map(({ node }) => node).join(", ") || "(there are none)";
  return {
    _tag: "NotFound",
    code: "no-such-guest",
    reason: `${known}none of the nodes ${names} has a guest ${guest} to move`,
  };
};
