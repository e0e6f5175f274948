/** A coordinator: answers users, and keeps a session for each migration that it owns. */
import {
  announceReady,
  bucketNeeds,
  GODWIT_VERSION,
  openOwnershipRegister,
  randomId,
  type Settings,
} from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import {
  CHECKPOINTS_LISTED_MAX,
  CheckpointList,
  CheckpointListRequest,
  type Failure,
  type GodwitError,
  isEnded,
  type JsonCodec,
  json,
  MIGRATIONS_BUCKET,
  MigrateRequest,
  MigrationInfo,
  MigrationList,
  MigrationRequest,
  NodeInfo,
  OWNERSHIP_BUCKET,
  type OwnerRequest,
  proposeCapabilities,
  proposeParameters,
  subjects,
  TuneRequest,
  toError,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import { infoOf, type Migration, makeMigration, savedOf } from "./decisions/index.ts";
import { openInventory } from "./inventory.ts";
import { makeOwner, refuse, unreachable } from "./owner.ts";
import { ACTOR, watchReplicas } from "./replicas.ts";
import { makeSessions } from "./sessions.ts";
import { openStore } from "./store.ts";

const QUEUE = "godwit-coordinator";

/** A migration that cannot be written down is not begun; a leader change takes seconds, and the user waits eight. */
const FIRST_SAVE_AGAIN = { schedule: Schedule.spaced("250 millis"), times: 8 };

const migrateRequest = json(MigrateRequest);
const migrationRequest = json(MigrationRequest);
const tuneRequest = json(TuneRequest);
const migrationInfo = json(MigrationInfo);
const migrationList = json(MigrationList);
const nodeList = json(Schema.Array(NodeInfo));
const checkpointListRequest = json(CheckpointListRequest);
const checkpointList = json(CheckpointList);

const isFailure = (value: object): value is Failure => "code" in value && "reason" in value;

/** Serves for ever. */
export const runCoordinator = Effect.fnUntraced(function* (
  settings: Settings,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const store = yield* openStore;
  const inventory = yield* openInventory;
  const self = settings.incarnation;
  const sessions = yield* makeSessions(self, store, yield* openOwnershipRegister);
  const owner = yield* makeOwner(self, store, sessions);

  /** The revision at which the new migration is stored. The write names a new key, so it can be repeated until its outcome is known. */
  const firstSave = (migration: Migration) =>
    Effect.gen(function* () {
      const outcome = yield* store.write(savedOf(migration, Date.now()), 0);
      if (typeof outcome === "object") return outcome.revision;
      const stored = outcome === "Lost" ? yield* store.read(migration.migration) : null;
      return yield* stored === null ? Effect.fail("not known yet" as const) : Effect.succeed(stored.revision);
    }).pipe(
      Effect.retry(FIRST_SAVE_AGAIN),
      Effect.mapError(() => refuse("nats-unreachable", "begin a migration", "the migrations bucket cannot be written")),
    );

  /** Fails with `version-mismatch` before anything has begun when the node would understand no word of ours. */
  const understands = (node: string, step: string): Effect.Effect<void, GodwitError> => {
    const obstacle = inventory.versionObstacle(node);
    return obstacle === null ? Effect.void : Effect.fail(refuse("version-mismatch", step, obstacle));
  };

  const migrate = Effect.fnUntraced(function* (request: MigrateRequest) {
    const parameters = proposeParameters(request.parameters);
    if (isFailure(parameters)) return yield* toError(parameters);
    const asked = proposeCapabilities(request.capabilities);
    if (isFailure(asked)) return yield* toError(asked);
    const step = "begin a migration";
    if (!inventory.nodes().includes(request.destination)) {
      const known = inventory.nodes().join(", ") || "none";
      return yield* refuse("no-such-node", step, `node ${request.destination} is not up; up are: ${known}`);
    }
    yield* understands(request.destination, step);
    const { node: source, driver } = yield* inventory.sourceOf(request.guest);
    yield* understands(source, step);
    const capabilities = proposeCapabilities(request.capabilities, driver);
    if (isFailure(capabilities)) return yield* toError(capabilities);
    if (source === request.destination) {
      return yield* refuse("guest-exists", step, `guest ${request.guest} is at node ${source} already`);
    }
    const busy = (yield* Effect.mapError(store.list, unreachable(step))).find(
      ({ saved }) => saved.info.guest === request.guest && !isEnded(saved.info.status),
    );
    if (busy !== undefined) {
      return yield* refuse(
        "migration-in-progress",
        step,
        `migration ${busy.saved.info.migration} is moving guest ${request.guest}`,
      );
    }
    const now = Date.now();
    const migration = makeMigration({
      migration: randomId(),
      guest: request.guest,
      source,
      destination: request.destination,
      parameters,
      capabilities,
      term: 1,
      owner: self,
      revision: 0,
      attempt: 1,
      startedAt: now,
      now,
      phase: { _tag: "Claiming" },
    });
    yield* sessions.begin(migration, firstSave(migration));
    return infoOf(migration, Date.now());
  });

  /** The newest of all migrations, whoever owns it. */
  const newest = Effect.fnUntraced(function* (step: string) {
    const all = yield* Effect.mapError(store.list, unreachable(step));
    const last = [...all].sort((a, b) => b.saved.startedAt - a.saved.startedAt)[0];
    if (last === undefined) return yield* refuse("no-such-migration", step, "there is none");
    return last.saved.info.migration;
  });

  /** A request about one migration, or about the newest. */
  const about = Effect.fnUntraced(function* (
    id: MigrationInfo["migration"] | undefined,
    toRequest: (migration: MigrationInfo["migration"]) => OwnerRequest,
  ) {
    return yield* owner.ask(toRequest(id ?? (yield* newest("find the migration"))));
  });

  const list = store.list.pipe(
    Effect.mapError(unreachable("list migrations")),
    Effect.map((all) => [...all].sort((a, b) => a.saved.startedAt - b.saved.startedAt)),
    Effect.flatMap((all) => Effect.forEach(all, owner.current, { concurrency: 8 })),
  );

  yield* watchReplicas(self, sessions.takeOver);

  const endpoint = <A, B>(
    name: string,
    input: JsonCodec<A>,
    output: JsonCodec<B>,
    handle: (request: A) => Effect.Effect<B, GodwitError>,
  ) => ({
    name,
    subject: subjects.coordinator(name),
    queue: QUEUE,
    handle: (data: Uint8Array) =>
      input.decodeEffect(data, ACTOR).pipe(Effect.flatMap(handle), Effect.map(output.encode)),
  });
  const word = (name: string, _tag: Exclude<OwnerRequest["_tag"], "SetParameters">) =>
    endpoint(name, migrationRequest, migrationInfo, (request) =>
      about(request.migration, (migration) => ({ _tag, migration })),
    );
  yield* fabric.serve({
    name: "godwit-coordinator",
    version: GODWIT_VERSION,
    description: "decides when migrations switch over, and when they give up",
    endpoints: [
      endpoint("migrate", migrateRequest, migrationInfo, migrate),
      word("query-migrate", "Query"),
      endpoint("list", migrationRequest, migrationList, () => list),
      endpoint("nodes", migrationRequest, nodeList, () => inventory.ask),
      endpoint("checkpoints", checkpointListRequest, checkpointList, () =>
        Effect.map(inventory.checkpoints, (all) => all.slice(0, CHECKPOINTS_LISTED_MAX)),
      ),
      word("cancel", "Cancel"),
      word("continue", "Continue"),
      word("start-postcopy", "StartPostcopy"),
      word("pause", "Pause"),
      word("recover", "Recover"),
      word("give-up", "GiveUp"),
      endpoint("set-parameters", tuneRequest, migrationInfo, (request) =>
        about(request.migration, (migration) => ({ ...request, _tag: "SetParameters", migration })),
      ),
      { name: "owner", subject: subjects.owner(self), handle: owner.passedOn },
    ],
  });
  const { node, incarnation } = settings;
  const needs = yield* bucketNeeds(OWNERSHIP_BUCKET, MIGRATIONS_BUCKET);
  yield* announceReady(settings, { role: ACTOR, node, id: incarnation, incarnation }, "coordinator", needs);
  return yield* Effect.never;
});
