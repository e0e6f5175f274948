/** Which nodes there are, and which guests they have. */
import { Fabric, type Member } from "@godwit/fabric";
import {
  CHECKPOINT_LISTS,
  type CheckpointInfo,
  CheckpointList,
  GodwitError,
  isMalformed,
  json,
  NodeInfo,
  parseVersion,
  subjects,
  versionRefusal,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { type Asked, chooseSource } from "./decisions/index.ts";

/** A node that has not answered by then is left out, ms: it asks its guests' monitors. */
const NODE_TIMEOUT_MS = 3000;
/** Actors that save and restore know at once how far they are, ms. */
const CHECKPOINTS_TIMEOUT_MS = 1000;
const codec = json(NodeInfo);
const lists = json(CheckpointList);
const NOTHING = new TextEncoder().encode("{}");

export interface Inventory {
  /** Names of the nodes that are up. */
  readonly nodes: () => ReadonlyArray<string>;
  /** Why a node would understand no word of this coordinator; null when it would. */
  readonly versionObstacle: (node: string) => string | null;
  /** What each of them has; one that does not answer is left out, one of another protocol version is there with nothing but that. */
  readonly ask: Effect.Effect<ReadonlyArray<NodeInfo>>;
  /** The saves and restores that are under way at all of them, oldest first; an actor that does not answer has none that could be shown. */
  readonly checkpoints: Effect.Effect<ReadonlyArray<CheckpointInfo>>;
  /** The node that has the guest as a source, and the guest's driver. Fails with `no-such-guest`, or with `node-silent` or `version-mismatch` when it may be at one that did not answer or cannot be asked. */
  readonly sourceOf: (guest: string) => Effect.Effect<{ readonly node: string; readonly driver: string }, GodwitError>;
}

export const openInventory = Effect.gen(function* () {
  const fabric = yield* Fabric;
  const members = new Map<string, Member>();
  const news = yield* fabric.watch({ role: "node" });
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(news.takeAll, (changes) => {
        for (const { _tag, member } of changes) {
          if (_tag === "Up") members.set(member.node, member);
          else if (members.get(member.node)?.incarnation === member.incarnation) members.delete(member.node);
        }
      }),
    ),
  );
  const versionObstacle = (node: string): string | null => {
    const theirs = parseVersion(members.get(node)?.protocol);
    return theirs === null ? null : versionRefusal(`node ${node}`, theirs, "this coordinator");
  };
  const askNode = (node: string): Effect.Effect<NodeInfo | null> =>
    fabric.request(subjects.node(node, "info"), NOTHING, { timeoutMs: NODE_TIMEOUT_MS }).pipe(
      Effect.map((bytes) => {
        const info = codec.decode(bytes);
        if (isMalformed(info)) return null;
        const protocol = members.get(node)?.protocol;
        return protocol === undefined ? info : { ...info, protocol };
      }),
      Effect.catch((error) => Effect.as(Effect.logWarning(`node ${node}: ${error.message}`), null)),
    );
  const nodes = (): ReadonlyArray<string> => [...members.keys()].sort();
  const asked = (node: string): Effect.Effect<Asked> => {
    const obstacle = versionObstacle(node);
    // A node of another version would not understand the question.
    const answer = obstacle === null ? askNode(node) : Effect.succeed(null);
    return Effect.map(answer, (info) => ({ node, info, versionObstacle: obstacle }));
  };
  const answers = Effect.suspend(() => Effect.forEach(nodes(), asked, { concurrency: "unbounded" }));
  const shown = ({ node, info, versionObstacle: error }: Asked): NodeInfo | null => {
    if (error === null) return info;
    const protocol = members.get(node)?.protocol ?? "";
    return { node, "godwit-version": "", protocol, error, guests: [], workers: 0 };
  };
  const ask = Effect.map(answers, (all) => all.map(shown).filter((info) => info !== null));
  const listOf = (node: string, verb: string): Effect.Effect<CheckpointList> =>
    fabric.request(subjects.node(node, verb), NOTHING, { timeoutMs: CHECKPOINTS_TIMEOUT_MS }).pipe(
      Effect.map((bytes) => {
        const list = lists.decode(bytes);
        return isMalformed(list) ? [] : list;
      }),
      Effect.catch((error) => Effect.as(Effect.logWarning(`node ${node}, ${verb}: ${error.message}`), [])),
    );
  const checkpoints = Effect.suspend(() => {
    const asked = nodes().filter((node) => versionObstacle(node) === null);
    const questions = asked.flatMap((node) => CHECKPOINT_LISTS.map((verb) => listOf(node, verb)));
    return Effect.map(Effect.all(questions, { concurrency: "unbounded" }), (all) =>
      all.flat().sort((a, b) => b["total-time"] - a["total-time"]),
    );
  });
  const sourceOf = Effect.fnUntraced(function* (guest: string) {
    const choice = chooseSource(guest, yield* answers);
    if (choice._tag === "Found") return choice;
    const { code, reason } = choice;
    return yield* new GodwitError({ code, actor: "coordinator", step: "find the guest", reason });
  });
  const inventory: Inventory = { nodes, versionObstacle, ask, checkpoints, sourceOf };
  return inventory;
}) satisfies Effect.Effect<Inventory, unknown, Fabric | Scope.Scope>;
