/**
 * Two hosts, a coordinator and a NATS server as real processes on this machine, for the tests of one file. Nothing here knows how
 * a migration works: what it offers is what an operator has, and a look at the processes.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { openOwnershipRegister } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import {
  type BuiltinOptions,
  type BuiltinSpec,
  openGuest,
  openRegistry,
  type RunState,
  startBuiltin,
} from "@godwit/guest";
import type { OwnershipRecord } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Layer from "effect/Layer";
import * as References from "effect/References";
import * as Schedule from "effect/Schedule";
import * as Scope from "effect/Scope";
import { follow, migrate, nodes } from "../../services/cli/src/client.ts";
import {
  childKey,
  type LocalCluster,
  type LocalClusterOptions,
  openLocalCluster,
} from "../../services/cli/src/local-cluster.ts";
import { type GuestProcess, guestProcesses } from "./guest-process.ts";
import { endsWithItsTest } from "./guests-of-a-test.ts";
import { type Journey, makeJourney } from "./journey.ts";

export const MIB = 1024 ** 2;
/** Workers of each node: two can die one after the other, and there are still some. */
const WORKERS = 2;
/** Between two looks at something that tells nobody when it changes, ms. */
const LOOK_AGAIN_MS = 20;
/** What has not come true by then never will, ms: restarts and settlements take a few seconds, several times that on a busy machine. */
const EVENTUALLY_MS = 120_000;
/** Eleven processes come up in about 3 s; a machine with much else to do may take many times that, ms. */
const START_MS = 150_000;
/** What of the log an error shows, characters. */
const LOG_SHOWN = 4000;

/** Which actor process: its role, its node and its number there. */
export type ActorName = readonly [
  role: "coordinator" | "ram-sender" | "loader" | "multifd-worker" | "vfio-agent",
  node: string,
  id: string,
];
export const coordinatorOf = (replica: number): ActorName => ["coordinator", "up", String(replica)];
export const COORDINATOR = coordinatorOf(0);
export const senderOf = (node: string): ActorName => ["ram-sender", node, "0"];
export const agentOf = (node: string): ActorName => ["vfio-agent", node, "0"];
export const loaderOf = (node: string): ActorName => ["loader", node, "0"];
export const workerOf = (node: string, id: number): ActorName => ["multifd-worker", node, String(id)];
export const workersOf = (node: string): ReadonlyArray<ActorName> =>
  Array.from({ length: WORKERS }, (_, id) => workerOf(node, id));

export interface MigrateOptions {
  readonly parameters?: Readonly<Record<string, unknown>>;
  readonly capabilities?: Readonly<Record<string, boolean>>;
}

export interface World {
  readonly cluster: LocalCluster;
  readonly directory: string;
  /** Runs what an operator's program would run. */
  readonly run: <A, E>(work: Effect.Effect<A, E, Fabric | Scope.Scope>) => Promise<A>;
  /** Starts a guest, by default at node a, and registers it there. */
  readonly startGuest: (options: Omit<BuiltinOptions, "directory">, node?: string) => Promise<BuiltinSpec>;
  /** Puts a guest into a node's registry. */
  readonly register: (node: string, spec: BuiltinSpec) => void;
  /** Begins a migration and watches it. */
  readonly migrate: (guest: string, destination: string, options?: MigrateOptions) => Promise<Journey>;
  readonly pidOf: (actor: ActorName) => number;
  /** kill -9; resolves when the process is gone, and rejects when it was not there. */
  readonly kill: (actor: ActorName) => Promise<void>;
  /** Processes of this guest, wherever they are. */
  readonly processesOf: (guest: string) => ReadonlyArray<GuestProcess>;
  readonly record: (guest: string) => Promise<OwnershipRecord | null>;
  readonly log: () => string;
  /** Ends everything that was started here, guests included, and removes every file. */
  readonly close: () => Promise<void>;
}

export interface WorldOptions
  extends Pick<
    LocalClusterOptions,
    "coordinators" | "credentialsOf" | "directOf" | "natsOf" | "natsUrl" | "credentials" | "jsDomain"
  > {
  /** URLs of the NATS servers that a node knows, when it does not know those of the others. */
  readonly natsUrlOf?: Readonly<Record<string, string>>;
  /** Workers of each node; default 2. */
  readonly workers?: number;
  /** Called before anything is started, with the directory in which each node's guests will lie in one of its own. */
  readonly prepare?: (guestDirectory: string) => void;
  /** Called once every guest has ended. */
  readonly tidy?: (guestDirectory: string) => Promise<void>;
}

/** Resolves once the coordinator answers and has both nodes; rejects with the log's end when they do not come up. */
export const openWorld = async (options: WorldOptions = {}): Promise<World> => {
  const directory = mkdtempSync(join(tmpdir(), "godwit-world-"));
  const guestDirectory = join("/dev/shm", basename(directory));
  const scope = Effect.runSync(Scope.make());
  // Actors are killed on purpose here: the warnings of their supervisors are no news.
  const quietly = <A, E>(work: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
    Effect.runPromise(
      work.pipe(Effect.provideService(Scope.Scope, scope), Effect.provideService(References.MinimumLogLevel, "None")),
    );
  const close = async (): Promise<void> => {
    await Effect.runPromise(
      Scope.close(scope, Exit.void).pipe(Effect.provideService(References.MinimumLogLevel, "None")),
    );
    endGuests(guestDirectory, () => true);
    await eventually("the guests end", () => guestProcesses(guestDirectory).length === 0);
    await options.tidy?.(guestDirectory);
    for (const path of [directory, guestDirectory]) rmSync(path, { recursive: true, force: true });
  };
  try {
    options.prepare?.(guestDirectory);
    const cluster = await quietly(
      openLocalCluster({
        directory,
        guestDirectory,
        nodes: ["a", "b"].map((name) => ({
          name,
          workers: options.workers ?? WORKERS,
          guests: [],
          ...(options.natsUrlOf?.[name] === undefined ? {} : { natsUrl: options.natsUrlOf[name] }),
        })),
        ...(options.coordinators === undefined ? {} : { coordinators: options.coordinators }),
        ...(options.credentialsOf === undefined ? {} : { credentialsOf: options.credentialsOf }),
        ...(options.natsUrl === undefined ? {} : { natsUrl: options.natsUrl }),
        ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
        ...(options.jsDomain === undefined ? {} : { jsDomain: options.jsDomain }),
        ...(options.natsOf === undefined ? {} : { natsOf: options.natsOf }),
        ...(options.directOf === undefined ? {} : { directOf: options.directOf }),
      }),
    );
    const context = await quietly(Layer.build(cluster.fabric));
    const run: World["run"] = (work) => quietly(Effect.provide(work, context));
    await run(everybodyIsUp).catch((cause) => {
      const shown = readFileSync(cluster.logFile, "utf8").slice(-LOG_SHOWN);
      throw new Error(`not everybody came up: ${cause}\n${shown}`, { cause });
    });
    return makeWorld(cluster, directory, guestDirectory, run, close);
  } catch (error) {
    await close();
    throw error;
  }
};

const makeWorld = (
  cluster: LocalCluster,
  directory: string,
  guestDirectory: string,
  run: World["run"],
  close: World["close"],
): World => {
  const childOf = (actor: ActorName) => {
    const child = cluster.children.get(childKey(...actor));
    if (child === undefined) throw new Error(`there is no ${actor.join(" ")}`);
    return child;
  };
  const register = (node: string, spec: BuiltinSpec): void =>
    openRegistry(cluster.settingsOf(node).runtimeDirectory).put(spec);
  return {
    cluster,
    directory,
    run,
    register,
    close,
    startGuest: async (options, node = "a") => {
      const spec = await run(startBuiltin({ ...options, directory: join(guestDirectory, node) }));
      register(node, spec);
      endsWithItsTest(() => endGuests(guestDirectory, (guest) => guest === spec.name));
      return spec;
    },
    migrate: async (guest, destination, { parameters = {}, capabilities = {} } = {}) => {
      const begun = await run(migrate({ guest, destination, parameters, capabilities }));
      return makeJourney(begun, (seen) => run(follow(begun.migration, seen)));
    },
    pidOf: (actor) => childOf(actor).pid,
    kill: async (actor) => {
      const child = childOf(actor);
      process.kill(child.pid, "SIGKILL");
      await Effect.runPromise(child.exited);
    },
    processesOf: (guest) => guestProcesses(guestDirectory).filter(({ spec }) => spec.name === guest),
    record: (guest) =>
      run(
        openOwnershipRegister.pipe(
          Effect.flatMap((register) => register.read(guest)),
          Effect.map((entry) => (entry === null || entry === "Unknown" ? null : entry.record)),
        ),
      ),
    log: () => readFileSync(cluster.logFile, "utf8"),
  };
};

const endGuests = (directory: string, isMeant: (guest: string) => boolean): void => {
  for (const { spec } of guestProcesses(directory)) {
    try {
      if (isMeant(spec.name)) process.kill(spec.pid, "SIGKILL");
    } catch {
      // It has ended since it was looked for.
    }
  }
};

/** Presence tells when each actor is there; the coordinator's answer tells that it knows the nodes. */
const everybodyIsUp = Effect.gen(function* () {
  const fabric = yield* Fabric;
  const news = yield* fabric.watch({});
  const missing = new Set(["coordinator/up", "node/a", "node/b"]);
  for (const node of ["a", "b"]) {
    for (const [role, , id] of [senderOf(node), loaderOf(node), ...workersOf(node)])
      missing.add(`${role}/${node}/${id}`);
  }
  while (missing.size > 0) {
    for (const { member } of yield* news.takeAll) {
      missing.delete(`${member.role}/${member.node}/${member.id}`);
      missing.delete(`${member.role}/${member.node}`);
    }
  }
  yield* nodes({}).pipe(
    Effect.filterOrFail(
      (known) => known.length === 2,
      () => "a node is not known yet" as const,
    ),
    Effect.retry(Schedule.spaced(LOOK_AGAIN_MS)),
  );
}).pipe(Effect.timeout(START_MS));

/** Kills it, and waits until its supervisor has started it again. */
export const killAndAwaitRestart = async (world: World, actor: ActorName): Promise<void> => {
  const before = world.pidOf(actor);
  await world.kill(actor);
  await eventually(`${actor.join(" ")} is started again`, () => world.pidOf(actor) !== before);
};

/** Waits until it holds; `what` is what an error says did not come true. */
export const eventually = async (what: string, holds: () => boolean | Promise<boolean>): Promise<void> => {
  const deadline = Date.now() + EVENTUALLY_MS;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`${EVENTUALLY_MS} ms passed, and still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
};

/** What a guest process says it is doing; `gone` for one that no longer answers. */
export const runStateOf = (world: World, spec: BuiltinSpec): Promise<RunState | "gone"> =>
  world.run(
    openGuest(spec).pipe(
      Effect.flatMap((guest) => guest.describe),
      Effect.map(({ runState }) => runState as RunState | "gone"),
      Effect.catch(() => Effect.succeed("gone" as const)),
    ),
  );
