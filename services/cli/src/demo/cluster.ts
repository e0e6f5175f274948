/** NATS, a coordinator and nodes `a` and `b` on this machine, all of them there. */
import type { Fabric } from "@godwit/fabric";
import type { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import { fromFabric } from "../connection.ts";
import { type LocalCluster, type LocalClusterOptions, openLocalCluster } from "../local-cluster.ts";
import { awaitMembers } from "../members.ts";
import type { Stage } from "./stage.ts";

/** The node that a guest is moved from, and the one it is moved to. */
export const SOURCE = "a";
export const DESTINATION = "b";

/** Processes that send; more channels than that share them. One that is killed must leave another one. */
const WORKERS_MIN = 2;
const WORKERS_MAX = 8;
export const workersFor = (channels: number): number => Math.max(WORKERS_MIN, Math.min(channels, WORKERS_MAX));

/** A cluster with everybody in it, and a fabric of our own. */
export interface ReadyCluster {
  readonly cluster: LocalCluster;
  readonly onFabric: <A>(work: Effect.Effect<A, GodwitError, Fabric>) => Effect.Effect<A, GodwitError>;
}

export const openCluster = (
  stage: Stage,
  options: Pick<LocalClusterOptions, "nodes" | "port">,
): Effect.Effect<ReadyCluster, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    const cluster = yield* openLocalCluster({
      directory: stage.directory,
      guestDirectory: stage.guestDirectory,
      ...options,
    }).pipe(Effect.mapError(fromFabric));
    const context = yield* Layer.build(cluster.fabric).pipe(Effect.mapError(fromFabric));
    const onFabric = <A>(work: Effect.Effect<A, GodwitError, Fabric>) => Effect.provide(work, context);
    yield* onFabric(awaitMembers(membersOf(options.nodes)));
    return { cluster, onFabric };
  });

/** Who is there once a cluster of these nodes is up. */
const membersOf = (nodes: LocalClusterOptions["nodes"]) => [
  { role: "coordinator" },
  ...nodes.flatMap(({ name: node, workers }) => [
    { role: "node", node },
    { role: "ram-sender", node },
    { role: "loader", node },
    { role: "vfio-agent", node },
    ...Array.from({ length: workers }, (_, id) => ({ role: "multifd-worker", node, id: String(id) })),
  ]),
];
