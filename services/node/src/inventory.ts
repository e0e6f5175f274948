/** What a node says about itself: its guests, and how many workers move their memory. */
import { announceReady, folderNeed, GODWIT_VERSION, type Settings } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import { type GuestSpec, lookAt, openGuest, openRegistry, type Registry } from "@godwit/guest";
import { json, NodeInfo, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

const codec = json(NodeInfo);

/** Serves until the scope ends: coordinators find the node, and its guests, by it. */
export const serveInventory = Effect.fnUntraced(function* (
  settings: Settings,
  registry: Registry,
  workers: () => number,
) {
  const fabric = yield* Fabric;
  const { node, incarnation, runtimeDirectory } = settings;
  yield* fabric.serve({
    name: "godwit-node",
    version: GODWIT_VERSION,
    description: `the actors and guests of node ${node}`,
    endpoints: [
      {
        name: "info",
        subject: subjects.node(node, "info"),
        handle: () => Effect.map(describeNode(node, registry, workers()), codec.encode),
      },
    ],
  });
  yield* announceReady(settings, { role: "node", node, id: "0", incarnation }, "node", [folderNeed(runtimeDirectory)]);
});

/** The node as an actor by itself, whose other actors are started by somebody else: a container engine. Serves for ever. */
export const runInventory = Effect.fnUntraced(function* (
  settings: Settings,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const registry = openRegistry(settings.runtimeDirectory);
  const workers = new Set<string>();
  const news = yield* fabric.watch({ role: "multifd-worker", node: settings.node });
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(news.takeAll, (changes) => {
        for (const { _tag, member } of changes) {
          if (_tag === "Up") workers.add(member.id);
          else workers.delete(member.id);
        }
      }),
    ),
  );
  yield* serveInventory(settings, registry, () => workers.size);
  return yield* Effect.never;
});

const describeNode = (node: string, registry: Registry, workers: number): Effect.Effect<NodeInfo> =>
  Effect.map(Effect.forEach(registry.list(), describeGuest, { concurrency: 8 }), (guests) => ({
    node,
    "godwit-version": GODWIT_VERSION,
    guests,
    workers,
  }));

/** How long a guest's monitor may take to answer, ms; a hung guest must not hide the others. */
const DESCRIBE_TIMEOUT_MS = 2000;

const describeGuest = (spec: GuestSpec): Effect.Effect<NodeInfo["guests"][number]> =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.describe)).pipe(
    Effect.timeout(DESCRIBE_TIMEOUT_MS),
    Effect.map((description) => ({
      name: spec.name,
      driver: spec.driver,
      machine: description.machine,
      // Loaded, and not handed over: it waits, however it got stuck.
      state:
        spec.moving === "arriving" && description.runState === "paused" ? "incoming" : (description.runState as string),
      "memory-bytes": description.blocks.reduce((sum, block) => sum + block.lengthBytes, 0),
    })),
    Effect.catch((error) =>
      Effect.map(lookAt(spec), (look) => ({
        name: spec.name,
        driver: spec.driver,
        machine: "",
        state: look === "gone" ? "gone" : "unreachable",
        "memory-bytes": 0,
        error: error.message,
      })),
    ),
  );
