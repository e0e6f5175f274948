/** A coordinator: answers users, and keeps a session for each migration that it owns. */
import { GODWIT_VERSION, openOwnershipRegister, randomId, type Settings } from "@godwit/actor";
import { Fabric, SILENT_MS } from "@godwit/fabric";
import {
  type Capabilities,
  type Failure,
  GodwitError,
  isEnded,
  type JsonCodec,
  json,
  MigrateRequest,
  MigrationInfo,
  MigrationList,
  MigrationRequest,
  NodeInfo,
  proposeCapabilities,
  proposeParameters,
  subjects,
  TuneRequest,
  toError,
  tuneParameters,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import * as Scope from "effect/Scope";
import { infoOf, type MigrationEventIn, makeMigration, type Phase, type SavedMigration } from "./decisions/index.ts";
import { openInventory } from "./inventory.ts";
import { type Session, savedOf, startSession } from "./session.ts";
import { openStore, type StoredMigration } from "./store.ts";

const ACTOR = "coordinator";
const QUEUE = "godwit-coordinator";

/** A coordinator that has died is missed within a second, and its migrations are taken over in the next, ms. */
const TAKE_OVER_LOOK_MS = 200;
const TAKE_OVER_LOOKS = 20;

const migrateRequest = json(MigrateRequest);
const migrationRequest = json(MigrationRequest);
const tuneRequest = json(TuneRequest);
const migrationInfo = json(MigrationInfo);
const migrationList = json(MigrationList);
const nodeList = json(Schema.Array(NodeInfo));

const isFailure = (value: object): value is Failure => "code" in value && "reason" in value;
const refuse = (code: Failure["code"], step: string, reason: string) =>
  new GodwitError({ code, actor: ACTOR, step, reason });

/** Serves for ever. */
export const runCoordinator = Effect.fnUntraced(function* (
  settings: Settings,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const store = yield* openStore;
  const register = yield* openOwnershipRegister;
  const inventory = yield* openInventory;
  const owner = settings.incarnation;
  const sessions = new Map<string, Session>();

  const open = (migration: Session["migration"], revision: number) =>
    startSession(migration, { store, register, owner, revision }).pipe(
      Effect.provideService(Fabric, fabric),
      Effect.provideService(Scope.Scope, scope),
      Effect.tap((session) => Effect.sync(() => sessions.set(migration.migration, session))),
    );

  const migrate = Effect.fnUntraced(function* (request: MigrateRequest) {
    const parameters = proposeParameters(request.parameters);
    if (isFailure(parameters)) return yield* toError(parameters);
    const capabilities = proposeCapabilities(request.capabilities);
    if (isFailure(capabilities)) return yield* toError(capabilities);
    const step = "begin a migration";
    if (!inventory.nodes().includes(request.destination)) {
      const known = inventory.nodes().join(", ") || "none";
      return yield* refuse("no-such-node", step, `node ${request.destination} is not up; up are: ${known}`);
    }
    const source = yield* inventory.sourceOf(request.guest);
    if (source === request.destination) {
      return yield* refuse("guest-exists", step, `guest ${request.guest} is at node ${source} already`);
    }
    const busy = (yield* store.list).find(
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
      attempt: 1,
      startedAt: now,
      now,
      phase: { _tag: "Claiming" },
    });
    const revision = yield* store.write(savedOf(migration, owner, now), 0);
    if (revision === null) return yield* refuse("internal", step, "the migrations bucket cannot be written");
    yield* open(migration, revision);
    return infoOf(migration, now);
  });

  /** The session a request is about: by id, or the newest. One that is just being taken over is waited for. */
  const sessionOf = Effect.fnUntraced(function* (id: string | undefined) {
    for (let look = 0; look < TAKE_OVER_LOOKS; look++) {
      const newest = [...sessions.values()].sort((a, b) => b.migration.startedAt - a.migration.startedAt)[0];
      const session = id === undefined ? newest : sessions.get(id);
      if (session !== undefined) return session;
      const elsewhere = (yield* store.list).some(
        ({ saved: { info } }) => (id === undefined || info.migration === id) && !isEnded(info.status),
      );
      if (!elsewhere) break;
      yield* Effect.sleep(TAKE_OVER_LOOK_MS);
    }
    return yield* refuse(
      "no-such-migration",
      "find the migration",
      id === undefined ? "there is none" : `migration ${id} is not known here`,
    );
  });

  const tell = Effect.fnUntraced(function* (id: string | undefined, what: string, event: MigrationEventIn) {
    const session = yield* sessionOf(id);
    const { status } = session.migration;
    if (isEnded(status))
      return yield* refuse("wrong-state", what, `migration ${session.migration.migration} is ${status}`);
    if (event._tag === "Continue" && status !== "pre-switchover") {
      return yield* refuse("wrong-state", what, `Migration not in expected state: ${status}`);
    }
    session.dispatch(event);
    return infoOf(session.migration, Date.now());
  });

  const tune = Effect.fnUntraced(function* (request: typeof TuneRequest.Type) {
    const session = yield* sessionOf(request.migration);
    const parameters = tuneParameters(session.migration.parameters, request.parameters);
    if (isFailure(parameters)) return yield* toError(parameters);
    return yield* tell(request.migration, "set parameters", { _tag: "Tune", parameters });
  });

  const list = Effect.map(store.list, (all) => {
    const now = Date.now();
    return all
      .map(({ saved }) => {
        const live = sessions.get(saved.info.migration);
        return live === undefined ? saved.info : infoOf(live.migration, now);
      })
      .sort((a, b) => sortKey(all, a) - sortKey(all, b));
  });

  const adopt = Effect.fnUntraced(function* ({ saved, revision }: StoredMigration) {
    const { migration } = saved.info;
    const won = yield* store.write({ ...saved, term: saved.term + 1, owner }, revision);
    if (won === null) return yield* Effect.logInfo(`migration ${migration} is another coordinator's`);
    yield* open(adopted(saved, Date.now()), won);
    yield* Effect.logInfo(`taking over migration ${migration}`);
  });
  yield* takeOver(owner, (isOrphan) =>
    Effect.flatMap(store.list, (all) =>
      Effect.forEach(
        all.filter(
          ({ saved }) => !isEnded(saved.info.status) && !sessions.has(saved.info.migration) && isOrphan(saved.owner),
        ),
        adopt,
        { discard: true },
      ),
    ),
  );

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
  yield* fabric.serve({
    name: "godwit-coordinator",
    version: GODWIT_VERSION,
    description: "decides when migrations switch over, and when they give up",
    endpoints: [
      endpoint("migrate", migrateRequest, migrationInfo, migrate),
      endpoint("query-migrate", migrationRequest, migrationInfo, ({ migration }) =>
        migration === undefined
          ? Effect.map(sessionOf(undefined), (session) => infoOf(session.migration, Date.now()))
          : Effect.flatMap(list, (all) => {
              const found = all.find((info) => info.migration === migration);
              return found === undefined
                ? Effect.fail(refuse("no-such-migration", "find the migration", `migration ${migration} is not known`))
                : Effect.succeed(found);
            }),
      ),
      endpoint("list", migrationRequest, migrationList, () => list),
      endpoint("nodes", migrationRequest, nodeList, () => inventory.ask),
      endpoint("cancel", migrationRequest, migrationInfo, ({ migration }) =>
        tell(migration, "cancel", { _tag: "Cancel" }),
      ),
      endpoint("continue", migrationRequest, migrationInfo, ({ migration }) =>
        tell(migration, "continue", { _tag: "Continue" }),
      ),
      endpoint("set-parameters", tuneRequest, migrationInfo, tune),
    ],
  });
  yield* fabric.announce({
    role: ACTOR,
    node: settings.node,
    id: settings.incarnation,
    incarnation: settings.incarnation,
  });
  yield* Effect.logInfo("coordinator ready");
  return yield* Effect.never;
});

/**
 * Calls `adopt` with who counts as gone: once after a start, when everybody who lives has had time to be heard, and again
 * whenever a coordinator goes.
 */
const takeOver = Effect.fnUntraced(function* (
  self: string,
  adopt: (isOrphan: (owner: string) => boolean) => Effect.Effect<void>,
) {
  const fabric = yield* Fabric;
  const alive = new Set<string>([self]);
  const news = yield* fabric.watch({ role: ACTOR });
  const round = Effect.suspend(() => adopt((of) => !alive.has(of)));
  yield* Effect.forkScoped(Effect.delay(round, SILENT_MS));
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.gen(function* () {
        const changes = yield* news.takeAll;
        for (const { _tag, member } of changes) {
          if (_tag === "Up") alive.add(member.incarnation);
          else alive.delete(member.incarnation);
        }
        if (changes.some(({ _tag }) => _tag === "Down")) yield* round;
      }),
    ),
  );
});

const sortKey = (all: ReadonlyArray<{ readonly saved: SavedMigration }>, info: MigrationInfo): number =>
  all.find(({ saved }) => saved.info.migration === info.migration)?.saved.startedAt ?? 0;

/** A migration that another coordinator left behind, under a higher term. */
const adopted = (saved: SavedMigration, now: number): Session["migration"] => {
  const phase: Phase = { _tag: "Adopting" };
  const migration = makeMigration({
    migration: saved.info.migration,
    guest: saved.info.guest,
    source: saved.info.source,
    destination: saved.info.destination,
    parameters: saved.parameters,
    capabilities: saved.capabilities as Capabilities,
    term: saved.term + 1,
    attempt: saved.attempt,
    startedAt: saved.startedAt,
    now,
    phase,
  });
  migration.status = saved.info.status;
  migration.failure = saved.failure;
  return migration;
};
