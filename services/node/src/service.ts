/** A node: the actors of one host, and the guests on it. */
import { GODWIT_VERSION, type Settings } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import { type GuestSpec, lookAt, openGuest, openRegistry, type Registry } from "@godwit/guest";
import { json, NodeInfo, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { Child, ChildSpec, LogTarget } from "./actor-child.ts";
import { supervise } from "./supervision.ts";

const codec = json(NodeInfo);
/** Workers of a pool unless told otherwise: channels spread over them, and two cores are busy with two. */
export const DEFAULT_WORKERS = 4;

export interface NodeOptions {
  readonly workers: number;
  /** Guests to register, besides those the registry has already. */
  readonly guests: ReadonlyArray<GuestSpec>;
  readonly log: LogTarget;
  /** Told of each process that is started, for those who watch or kill them. */
  readonly started: (child: Child) => void;
  /** Where a process finds NATS, when each has a way of its own to it; otherwise as the node does. */
  readonly natsOf?: (child: ChildSpec) => string;
}

/** Runs until its scope ends; then its actors are stopped, and guests are left as they are. */
export const runNode = Effect.fnUntraced(function* (
  settings: Settings,
  options: NodeOptions,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const registry = openRegistry(settings.runtimeDirectory);
  for (const spec of options.guests) registry.put(spec);
  const children: ReadonlyArray<ChildSpec> = [
    { role: "ram-sender", id: "0" },
    { role: "loader", id: "0" },
    { role: "vfio-agent", id: "0" },
    ...Array.from(
      { length: options.workers },
      (_, worker): ChildSpec => ({ role: "multifd-worker", id: String(worker) }),
    ),
  ];
  const workers = new Set<string>();
  for (const child of children) {
    const nats = options.natsOf?.(child) ?? settings.nats;
    const { log, started } = options;
    const pool = child.role === "multifd-worker" ? { pool: workers } : {};
    yield* Effect.forkScoped(supervise(child, { ...settings, nats }, { log, started, ...pool }));
  }
  yield* fabric.serve({
    name: "godwit-node",
    version: GODWIT_VERSION,
    description: `the actors and guests of node ${settings.node}`,
    endpoints: [
      {
        name: "info",
        subject: subjects.node(settings.node, "info"),
        handle: () => Effect.map(describeNode(settings, registry, options.workers), codec.encode),
      },
    ],
  });
  yield* fabric.announce({ role: "node", node: settings.node, id: "0", incarnation: settings.incarnation });
  yield* Effect.logInfo("node ready");
  return yield* Effect.never;
});

const describeNode = (settings: Settings, registry: Registry, workers: number): Effect.Effect<NodeInfo> =>
  Effect.map(Effect.forEach(registry.list(), describeGuest, { concurrency: 8 }), (guests) => ({
    node: settings.node,
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
