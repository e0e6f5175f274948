/** A world that can be disturbed: every actor has a way of its own to NATS, and one by which others reach it, and whoever is hit comes back before the next run. */
import type { Fabric } from "@godwit/fabric";
import { Fabric as FabricService } from "@godwit/fabric";
import type { BuiltinDevice, BuiltinSpec } from "@godwit/guest";
import { isMalformed, json, MIGRATIONS_BUCKET } from "@godwit/protocol";
import { STOP_COPY_ONLY } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import { childKey } from "../../services/cli/src/local-cluster.ts";
import { freePort } from "../integration/direct-detour.ts";
import { isAlive } from "../integration/guest-process.ts";
import {
  type ActorName,
  agentOf,
  coordinatorOf,
  eventually,
  loaderOf,
  MIB,
  openWorld,
  type World,
} from "../integration/world.ts";
import { WORKERS } from "./fault.ts";
import { openProxy, type TcpProxy } from "./proxy.ts";
import { type Server, serverOf } from "./server.ts";
import { openWitness, type Witness } from "./witness.ts";

export const NODES = ["a", "b"] as const;
export type NodeName = (typeof NODES)[number];
export const otherNode = (node: NodeName): NodeName => (node === "a" ? "b" : "a");

export const COORDINATORS = 2;
/** Small, so that a run takes seconds; it writes enough for several passes, and not so much that no pass is smaller than the last. */
const GUEST = {
  memoryBytes: 24 * MIB,
  dirtyRateBytesPerSecond: 2 * MIB,
  workingSetBytes: 4 * MIB,
  // Most writes change all of a page, and some so little that a delta is short.
  mix: { zero: 20, compressible: 20, random: 20, counted: 40 },
};
/** One device that is moved while it works, and one that gives nothing before it is stopped. */
const DEVICES: ReadonlyArray<BuiltinDevice> = [
  {
    options: {
      name: "vfio0",
      stateBytes: 3 * MIB,
      initialBytes: MIB / 4,
      dirtyBytesPerSecond: MIB / 4,
      allocationMs: 20,
    },
  },
  { options: { name: "vfio1", stateBytes: MIB, ...STOP_COPY_ONLY, seed: 2 } },
];

export interface Arena {
  readonly world: World;
  readonly server: Server;
  readonly witness: Witness;
  /** The guest that goes to and fro, and its VFIO devices. */
  readonly guest: string;
  readonly devices: ReadonlyArray<BuiltinDevice>;
  /** The one that does not move at the moment: its files are no leftovers. */
  readonly otherGuest: string;
  /** All that an actor's connections lead through: to NATS, and those of others to it. */
  readonly waysOf: (actor: ActorName) => ReadonlyArray<TcpProxy>;
  /** How often each device had changed when it was judged last: what it has forgotten since would show. */
  readonly generations: Map<string, number>;
  /** Resolves when every actor's present process has been heard. */
  readonly everybodyUp: () => Promise<void>;
  /** The coordinator that a migration belongs to; null: nobody that lives. */
  readonly ownerOf: (migration: string) => Promise<ActorName | null>;
  readonly startGuest: (node: NodeName) => Promise<BuiltinSpec>;
  readonly close: () => Promise<void>;
}

const bareOf = (guest: string): string => `${guest}-bare`;

/** The same world with the guest that is moved by postcopy: it has no devices. */
export const forPostcopy = (arena: Arena): Arena => {
  const guest = bareOf(arena.guest);
  return {
    ...arena,
    guest,
    otherGuest: arena.guest,
    devices: [],
    startGuest: (node) => arena.world.startGuest({ ...GUEST, name: guest }, node),
  };
};

const Owned = json(Schema.Struct({ owner: Schema.String }));

/** Keeps the incarnations of those who are present. */
const watchPresence = (present: Set<string>): Effect.Effect<void, unknown, Fabric | Scope.Scope> =>
  Effect.gen(function* () {
    const fabric = yield* FabricService;
    const news = yield* fabric.watch({});
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.map(news.takeAll, (events) => {
          for (const { _tag, member } of events) {
            if (_tag === "Up") present.add(member.incarnation);
            else present.delete(member.incarnation);
          }
        }),
      ),
    );
  });

const actorsOf = (): ReadonlyArray<ActorName> => [
  ...Array.from({ length: COORDINATORS }, (_, replica) => coordinatorOf(replica)),
  ...NODES.flatMap(
    (node): ReadonlyArray<ActorName> => [
      ["ram-sender", node, "0"],
      ["loader", node, "0"],
      ["vfio-agent", node, "0"],
      ...Array.from({ length: WORKERS }, (_, worker): ActorName => ["multifd-worker", node, String(worker)]),
    ],
  ),
];

/** Opens the world and starts its guest at node a. */
export const openArena = async (guest = "wanderer"): Promise<Arena> => {
  const proxies = new Map<string, TcpProxy>();
  for (const actor of actorsOf()) proxies.set(childKey(...actor), await openProxy());
  /** Before those who take direct connections. */
  const doors = new Map<string, { readonly port: number; readonly proxy: TcpProxy }>();
  for (const actor of NODES.flatMap((node) => [loaderOf(node), agentOf(node)])) {
    const [port, proxy] = [await freePort(), await openProxy()];
    proxy.leadTo(port);
    doors.set(childKey(...actor), { port, proxy });
    proxies.set(`direct ${childKey(...actor)}`, proxy);
  }
  const closing: Array<() => Promise<void>> = [...proxies.values()].map((proxy) => proxy.close);
  const close = async (): Promise<void> => {
    for (const one of closing.reverse()) await one();
    closing.length = 0;
  };
  try {
    const world = await openWorld({
      coordinators: COORDINATORS,
      workers: WORKERS,
      natsOf: ({ role, node, id }, url) => {
        const proxy = proxies.get(childKey(role, node, id))!;
        proxy.leadTo(Number(new URL(url).port));
        return `nats://127.0.0.1:${proxy.port}`;
      },
      directOf: ({ role, node, id }) => {
        const door = doors.get(childKey(role, node, id));
        if (door === undefined) return {};
        return { listen: `127.0.0.1:${door.port}`, address: `127.0.0.1:${door.proxy.port}` };
      },
    });
    closing.push(world.close);
    const server = serverOf(world);
    // A world ends more orderly with its server than without.
    closing.splice(-1, 0, server.close);
    const witness = await openWitness(world.cluster.url);
    closing.push(witness.close);
    const present = new Set<string>();
    await world.run(watchPresence(present));
    const arena: Arena = {
      world,
      server,
      witness,
      guest,
      devices: DEVICES,
      otherGuest: bareOf(guest),
      generations: new Map(),
      waysOf: (actor) => {
        const key = childKey(...actor);
        return [proxies.get(key)!, ...(doors.get(key) === undefined ? [] : [doors.get(key)!.proxy])];
      },
      everybodyUp: () =>
        eventually("every actor is up", () =>
          // One that was killed just now still counts as present.
          [...world.cluster.children.values()].every(
            ({ pid, member }) => isAlive(pid) && present.has(member.incarnation),
          ),
        ),
      ownerOf: async (migration) => {
        const stored = await world.run(
          Effect.gen(function* () {
            const bucket = yield* (yield* FabricService).bucket(MIGRATIONS_BUCKET);
            return yield* bucket.get(migration);
          }),
        );
        const saved = stored === null ? null : Owned.decode(stored.value);
        if (saved === null || isMalformed(saved)) return null;
        const children = [...world.cluster.children.values()];
        const owner = children.find(({ member }) => member.incarnation === saved.owner);
        return owner === undefined ? null : coordinatorOf(Number(owner.spec.id));
      },
      startGuest: (node) => world.startGuest({ ...GUEST, name: guest, devices: DEVICES }, node),
      close,
    };
    await arena.everybodyUp();
    await arena.startGuest("a");
    await forPostcopy(arena).startGuest("a");
    return arena;
  } catch (error) {
    await close();
    throw error;
  }
};
