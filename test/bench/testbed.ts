/** A whole godwit on this machine, two nodes of it, and guests that go to and fro between them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { follow, migrate } from "@godwit/cli/client";
import { childKey, type LocalCluster, openLocalCluster } from "@godwit/cli/local-cluster";
import { Fabric } from "@godwit/fabric";
import { awaitVerified, type GuestSpec, openRegistry } from "@godwit/guest";
import { isEnded, type MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import { openMemoryDirectory } from "./memory-directory.ts";
import { type Apart, actorOf, startNodeApart } from "./node-apart.ts";
import { isAlive } from "./process-usage.ts";

export type NodeName = "a" | "b";
export const NODES = ["a", "b"] as const;
export const otherNode = (node: NodeName): NodeName => (node === "a" ? "b" : "a");

export interface Testbed {
  readonly cluster: LocalCluster;
  readonly fabric: Fabric["Service"];
  /** A tmpfs directory for RAM files, and one for everything else; both go with the scope. */
  readonly memoryDirectory: string;
  readonly directory: string;
  /** Makes a guest known to a node. */
  readonly register: (node: NodeName, guest: GuestSpec) => void;
  readonly forget: (node: NodeName, guest: string) => void;
  /**
   * Moves a guest to the other node; fails when the migration does. Unless told otherwise, it waits until a builtin guest has
   * checked its memory, and fails when that finds a bad page.
   */
  readonly move: (
    guest: string,
    to: NodeName,
    parameters: Readonly<Record<string, unknown>>,
    seen?: (info: MigrationInfo) => void,
    after?: "verified" | "unverified",
    capabilities?: Readonly<Record<string, boolean>>,
  ) => Effect.Effect<MigrationInfo, unknown>;
  /** The check of a guest that was moved "unverified". */
  readonly verified: (guest: string, at: NodeName) => Effect.Effect<void, unknown>;
  /** Returns when every actor is there. */
  readonly allUp: Effect.Effect<void, unknown>;
  readonly pidOf: (role: string, node: string, id: string) => number;
}

/** Bandwidth without a limit: everything here is about how fast it can be. */
export const UNLIMITED = { "max-bandwidth": 0 } as const;
/** Without `verify`, which reads everything a second time at both sides: for what is compared with something that does not. */
export const UNCOMPARED = { verify: false } as const;

export interface TestbedOptions {
  readonly workers: number;
  /** Default 1. */
  readonly coordinators?: number;
  /** Where all that is no RAM is kept, checkpoints among it; default: the folder for temporary files. */
  readonly filesIn?: string;
  /** What all files of guests' memory may add up to, holes included, bytes; default: what /dev/shm has. */
  readonly memoryRoomBytes?: number;
  /** Where the credentials of a node's actors are; default: they have none. */
  readonly credentialsOf?: (node: string) => string | undefined;
  /** Node b is behind a link; default: beside node a. */
  readonly apart?: Apart;
}

export const openTestbed = Effect.fnUntraced(function* (
  options: TestbedOptions,
): Effect.fn.Return<Testbed, unknown, Scope.Scope> {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(options.filesIn ?? tmpdir(), "godwit-bench-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true })),
  );
  const memoryDirectory = yield* openMemoryDirectory(`${basename(directory)}-ram`, options.memoryRoomBytes ?? 0);
  const registries = { a: openRegistry(join(directory, "a")), b: openRegistry(join(directory, "b")) };
  yield* Effect.addFinalizer(() =>
    Effect.forEach(
      NODES.flatMap((node) => registries[node].list()),
      endGuest,
    ),
  );
  const { apart } = options;
  const cluster = yield* openLocalCluster({
    directory,
    guestDirectory: memoryDirectory,
    nodes: NODES.filter((name) => name === "a" || apart === undefined).map((name) => ({
      name,
      workers: options.workers,
      guests: [],
    })),
    ...(apart === undefined ? {} : { natsUrl: apart.natsUrl }),
    ...(options.coordinators === undefined ? {} : { coordinators: options.coordinators }),
    ...(options.credentialsOf === undefined ? {} : { credentialsOf: options.credentialsOf }),
  });
  const supervisorOfB =
    apart === undefined
      ? null
      : yield* startNodeApart(apart.enter, {
          directory,
          guestDirectory: memoryDirectory,
          workers: options.workers,
          natsUrl: apart.natsUrl,
        });
  const context = yield* Layer.build(cluster.fabric);
  const fabric = yield* Effect.provideContext(Fabric, context);
  const allUp = awaitMembers(fabric, options);
  yield* allUp;
  const verified = Effect.fnUntraced(function* (guest: string, at: NodeName) {
    const arrived = registries[at].find(guest);
    if (arrived?.driver !== "builtin") return;
    const { badCount } = yield* awaitVerified(arrived);
    if (badCount > 0) yield* Effect.fail(new Error(`${badCount} pages of guest ${guest} are bad`));
  });
  return {
    cluster,
    fabric,
    memoryDirectory,
    directory,
    register: (node, guest) => registries[node].put(guest),
    forget: (node, guest) => registries[node].remove(guest),
    move: (guest, to, parameters, seen = () => {}, after = "verified", capabilities = {}) =>
      Effect.gen(function* () {
        const { migration } = yield* migrate({ guest, destination: to, parameters, capabilities } as never).pipe(
          // A coordinator answers before it has heard of both nodes.
          Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 50, while: isTooEarly }),
        );
        const info = yield* follow(migration, seen);
        if (!isEnded(info.status) || info.status !== "completed")
          return yield* Effect.fail(new Error(`the migration ended as ${info.status}: ${info["error-desc"]}`));
        if (after === "verified") yield* verified(guest, to);
        return info;
      }).pipe(Effect.provideContext(context)),
    verified,
    allUp,
    pidOf: (role, node, id) => {
      if (node === "b" && supervisorOfB !== null) return actorOf(supervisorOfB, role, id);
      const child = cluster.children.get(childKey(role, node, id));
      if (child === undefined) throw new Error(`there is no ${childKey(role, node, id)}`);
      return child.pid;
    },
  };
});

const isTooEarly = (error: { readonly code: string }): boolean =>
  error.code === "no-such-guest" || error.code === "no-such-node" || error.code === "nats-unreachable";

/** Returns when every actor has announced itself. */
const awaitMembers = Effect.fnUntraced(function* (
  fabric: Fabric["Service"],
  { workers, coordinators = 1 }: TestbedOptions,
) {
  const missing = new Set<string>();
  for (const node of NODES) {
    for (const role of ["node", "ram-sender", "loader", "vfio-agent"]) missing.add(childKey(role, node, "0"));
    for (let worker = 0; worker < workers; worker++) missing.add(childKey("multifd-worker", node, String(worker)));
  }
  // They are told apart by their incarnations alone.
  const deciders = new Set<string>();
  yield* Effect.scoped(
    Effect.gen(function* () {
      const news = yield* fabric.watch({});
      while (missing.size > 0 || deciders.size < coordinators) {
        for (const { _tag, member } of yield* news.takeAll) {
          if (_tag === "Down") deciders.delete(member.incarnation);
          else if (member.role === "coordinator") deciders.add(member.incarnation);
          else missing.delete(childKey(member.role, member.node, member.id));
        }
      }
    }),
  ).pipe(
    Effect.timeoutOrElse({
      // Beside other work on the same processors a dozen processes take minutes to start.
      duration: "180 seconds",
      orElse: () =>
        Effect.fail(
          new Error(`${deciders.size} coordinators came up, and these actors did not: ${[...missing].join(", ")}`),
        ),
    }),
  );
});

/** Ends a builtin guest, whose process outlives everything else, and waits for its end. A QEMU belongs to whoever launched it. */
const endGuest = (guest: GuestSpec): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (guest.driver !== "builtin" || !isAlive(guest.pid)) return Effect.void;
    process.kill(guest.pid, "SIGTERM");
    return Effect.sync(() => isAlive(guest.pid)).pipe(
      Effect.repeat({ until: (alive) => !alive, schedule: Schedule.spaced("20 millis"), times: 250 }),
      Effect.asVoid,
    );
  });
