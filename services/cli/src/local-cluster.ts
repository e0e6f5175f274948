/** Everything on this machine: a NATS server, a coordinator, and nodes. What `godwit up`, the demo and the tests stand on. */
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type DirectSettings, randomId, type Settings, tlsOf } from "@godwit/actor";
import { type Fabric, type FabricError, NatsFabric, type NatsOptions, setUpBuckets } from "@godwit/fabric";
import { localNats } from "@godwit/fabric/local-nats";
import type { GuestSpec } from "@godwit/guest";
import { type Child, type ChildSpec, runNode, supervise } from "@godwit/node";
import { BUCKETS, type Incarnation } from "@godwit/protocol";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import { CERTIFICATE_AUTHORITY } from "./credentials/server-configuration.ts";

const COORDINATOR = "coordinator";

export interface LocalClusterOptions {
  /** Everything it writes lies below; the caller removes it. */
  readonly directory: string;
  /** Where RAM files of builtin guests lie: a tmpfs. */
  readonly guestDirectory: string;
  readonly nodes: ReadonlyArray<{
    readonly name: string;
    readonly workers: number;
    readonly guests: ReadonlyArray<GuestSpec>;
    /** URLs of the NATS servers that this host knows, when it does not know those of the others. */
    readonly natsUrl?: string;
  }>;
  /** Replicas of the coordinator; default 1. */
  readonly coordinators?: number;
  /** Where an actor process finds NATS, given the servers' own URLs: a detour for tests that cut connections. */
  readonly natsOf?: (
    actor: { readonly role: string; readonly node: string; readonly id: string },
    url: string,
  ) => string;
  /** Where an actor process takes direct connections, and what it offers: a detour for the same tests. */
  readonly directOf?: (actor: { readonly role: string; readonly node: string; readonly id: string }) => DirectSettings;
  /** URLs of NATS servers that run already, separated by commas; without it one is started, which ends with the scope. */
  readonly natsUrl?: string;
  /** The folder of `godwit credentials` that those servers trust: everybody comes in with what it holds for him, over TLS. */
  readonly credentials?: string;
  /** The JetStream domain of the buckets; default: that of the servers at `natsUrl`. */
  readonly jsDomain?: string;
  /** A folder with a credentials file for each role of a node's actors (`loader.creds`); without it they have none. */
  readonly credentialsOf?: (node: string) => string | undefined;
  /** TCP port of NATS; 0: any. */
  readonly port?: number;
  /** Where NATS's streams lie; default below `directory`. */
  readonly natsDirectory?: string;
}

export interface LocalCluster {
  readonly url: string;
  readonly logFile: string;
  /** The processes that live now, by role, node and id. */
  readonly children: ReadonlyMap<string, Child>;
  readonly settingsOf: (node: string) => Settings;
  /** A fabric for the caller's own requests. */
  readonly fabric: Layer.Layer<Fabric, FabricError>;
}

export const childKey = (role: string, node: string, id: string): string => `${role}/${node}/${id}`;

/** The server is there, we started it: on a host where a dozen processes start at once a connection may only take too long. */
const CONNECT_AGAIN = Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 10 }));

/** What of a folder of credentials a process is given: its part of the folder, and its role there. */
const accessOf = (
  credentials: string | undefined,
  part: string,
  role: string,
): Omit<NatsOptions, "servers" | "name"> =>
  credentials === undefined
    ? {}
    : { role, creds: join(credentials, part), tls: { caFile: join(credentials, CERTIFICATE_AUTHORITY) } };
const ofNode = (node: string): string => join("nodes", node);

const fabricOn = (options: NatsOptions): Layer.Layer<Fabric, FabricError> =>
  Layer.effectContext(
    Effect.retry(Layer.build(NatsFabric.layer(options)), {
      schedule: CONNECT_AGAIN,
      while: ({ retryable }) => retryable,
    }),
  );

/** Starts it all in the scope; returns at once, actors come up meanwhile. */
export const openLocalCluster = Effect.fnUntraced(function* (
  options: LocalClusterOptions,
): Effect.fn.Return<LocalCluster, FabricError, Scope.Scope> {
  mkdirSync(options.directory, { recursive: true, mode: 0o700 });
  const logFile = join(options.directory, "godwit.log");
  const log = yield* Effect.acquireRelease(
    Effect.sync(() => openSync(logFile, "a", 0o600)),
    (fd) => Effect.sync(() => closeSync(fd)),
  );
  const url =
    options.natsUrl ??
    (yield* localNats({
      storeDir: options.natsDirectory ?? join(options.directory, "nats"),
      port: options.port ?? 0,
    })).url;
  const { jsDomain, credentials } = options;
  const natsOptions = (name: string, part: string, role: string, servers = url): NatsOptions => ({
    servers,
    name,
    ...(jsDomain === undefined ? {} : { jsDomain }),
    ...accessOf(credentials, part, role),
  });
  const urlOf = (node: string): string => options.nodes.find(({ name }) => name === node)?.natsUrl ?? url;
  yield* setUpBuckets(natsOptions("godwit setup-nats", "", "admin"), BUCKETS);
  const children = new Map<string, Child>();
  const started = (child: Child): void => {
    const { role, id } = child.spec;
    children.set(childKey(role, child.member.node, id), child);
  };
  const settingsOf = (node: string, part = ofNode(node)): Settings => ({
    nats: urlOf(node),
    creds: credentials === undefined ? options.credentialsOf?.(node) : join(credentials, part),
    jsDomain,
    ...tlsOf(credentials === undefined ? null : join(credentials, CERTIFICATE_AUTHORITY), null, null),
    node,
    runtimeDirectory: join(options.directory, node),
    guestDirectory: join(options.guestDirectory, node),
    // One for all nodes, as hosts that share a file system have it.
    checkpointDirectory: join(options.directory, "checkpoints"),
    incarnation: randomId() as Incarnation,
  });
  /** Runs something for ever on a fabric of its own, as a process would. */
  const onFabric = Effect.fnUntraced(function* (
    name: string,
    [part, role]: readonly [part: string, role: string],
    servers: string,
    work: Effect.Effect<never, unknown, Fabric | Scope.Scope>,
  ) {
    const context = yield* Layer.build(fabricOn(natsOptions(name, part, role, servers)));
    // Nobody joins this fiber: if its end were not written down, its actors would be missing without a word.
    const told = work.pipe(
      Effect.tapCause((cause) => {
        if (Cause.hasInterruptsOnly(cause)) return Effect.void;
        const line = { level: "error", time: new Date().toISOString(), actor: name, msg: Cause.pretty(cause) };
        return Effect.andThen(
          Effect.sync(() => writeSync(log, `${JSON.stringify(line)}\n`)),
          Effect.logError(`${name} has failed`, cause),
        );
      }),
    );
    yield* Effect.forkScoped(Effect.provide(told, context));
  });
  const natsOf = (node: string) => (child: ChildSpec) =>
    options.natsOf?.({ role: child.role, node, id: child.id }, urlOf(node)) ?? urlOf(node);
  for (let replica = 0; replica < (options.coordinators ?? 1); replica++) {
    const child: ChildSpec = { role: "coordinator", id: String(replica) };
    const settings = { ...settingsOf("up", COORDINATOR), nats: natsOf("up")(child) };
    yield* onFabric("godwit up", [COORDINATOR, COORDINATOR], url, supervise(child, settings, { log, started }));
  }
  for (const { name, workers, guests } of options.nodes) {
    const { directOf } = options;
    const direct =
      directOf === undefined ? {} : { directOf: ({ role, id }: ChildSpec) => directOf({ role, node: name, id }) };
    const nodeOptions = { workers, guests, log, started, natsOf: natsOf(name), ...direct };
    yield* onFabric(`godwit node ${name}`, [ofNode(name), "node"], urlOf(name), runNode(settingsOf(name), nodeOptions));
  }
  return {
    url,
    logFile,
    children,
    settingsOf,
    fabric: fabricOn(natsOptions("godwit cli", "", "operator")),
  };
});
