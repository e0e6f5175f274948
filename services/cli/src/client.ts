/** What users ask a coordinator, typed; and a migration watched to its end. */
import { Fabric, type RequestError } from "@godwit/fabric";
import {
  ANY_ROUTE,
  CheckpointInfo,
  CheckpointList,
  CheckpointListRequest,
  CheckpointQuery,
  GodwitError,
  isEnded,
  isMalformed,
  type JsonCodec,
  json,
  MigrateRequest,
  MigrationEvent,
  MigrationInfo,
  MigrationList,
  MigrationRequest,
  NodeInfo,
  RestoreRequest,
  SaveRequest,
  subjects,
  TuneRequest,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { fromFabric } from "./connection.ts";

/** A coordinator asks the nodes before it answers, and those their guests, ms. */
const REQUEST_TIMEOUT_MS = 8000;
/** Without an event for this long the coordinator is asked, ms: an event may be lost, and a coordinator may be restarting. */
const QUIET_MS = 1000;
/** No event and no answer for this long, ms: whoever watches is told so. A coordinator that is restarted answers within seconds. */
const LOST_MS = 60_000;
const WAITING_EVENTS_MAX = 1024;

const events = json(MigrationEvent);
const migrateRequest = json(MigrateRequest);
const migrationRequest = json(MigrationRequest);
const tuneRequest = json(TuneRequest);
const migrationInfo = json(MigrationInfo);
const migrationList = json(MigrationList);
const nodeList = json(Schema.Array(NodeInfo));

const explain =
  (verb: string, whom = "a coordinator") =>
  (error: RequestError): GodwitError => {
    if (error._tag === "GodwitError") return error;
    const step = `ask ${whom} to ${verb}`;
    if (error._tag === "NoResponders") {
      const reason =
        whom === "a coordinator"
          ? "NATS is there, but no godwit coordinator answers on it; start one with `godwit coordinator`"
          : `${whom} does not answer; \`godwit nodes\` lists those that are up`;
      return new GodwitError({ code: "nats-unreachable", actor: "cli", step, reason });
    }
    if (error._tag === "FabricError") return fromFabric(error);
    return new GodwitError({ code: "nats-unreachable", actor: "cli", step, reason: error.message });
  };

const ask =
  <A, B>(verb: string, input: JsonCodec<A>, output: JsonCodec<B>, again: ReadonlyArray<number>) =>
  (request: A): Effect.Effect<B, GodwitError, Fabric> =>
    Effect.gen(function* () {
      const fabric = yield* Fabric;
      const once = fabric.request(subjects.coordinator(verb), input.encode(request), { timeoutMs: REQUEST_TIMEOUT_MS });
      const tries = [0, ...again].map((afterMs) => Effect.delay(once, afterMs));
      // The first answer counts, a refusal as well.
      const reply = yield* Effect.raceAllFirst(tries).pipe(Effect.mapError(explain(verb)));
      return yield* output.decodeEffect(reply, "cli");
    });

/** A second migration of a guest would be refused, and the first one's answer be lost. */
const ONCE: ReadonlyArray<number> = [];
/** NATS hands a request to one replica: when that one is asleep or cut off, another may answer the same question, ms later. */
const AGAIN: ReadonlyArray<number> = [1000, 2500];

export const migrate = ask("migrate", migrateRequest, migrationInfo, ONCE);
export const queryMigrate = ask("query-migrate", migrationRequest, migrationInfo, AGAIN);
export const listMigrations = ask("list", migrationRequest, migrationList, AGAIN);
export const cancel = ask("cancel", migrationRequest, migrationInfo, AGAIN);
export const resumePaused = ask("continue", migrationRequest, migrationInfo, AGAIN);
export const startPostcopy = ask("start-postcopy", migrationRequest, migrationInfo, AGAIN);
export const pausePostcopy = ask("pause", migrationRequest, migrationInfo, AGAIN);
export const recoverPostcopy = ask("recover", migrationRequest, migrationInfo, AGAIN);
export const giveUp = ask("give-up", migrationRequest, migrationInfo, AGAIN);
export const setParameters = ask("set-parameters", tuneRequest, migrationInfo, AGAIN);
export const nodes = ask("nodes", migrationRequest, nodeList, AGAIN);
/** Saves and restores that are under way, oldest first. */
export const listCheckpoints = ask("checkpoints", json(CheckpointListRequest), json(CheckpointList), AGAIN);

/** The same for the actors of one node. */
const askNode =
  <A, B>(verb: string, input: JsonCodec<A>, output: JsonCodec<B>) =>
  (node: string, request: A): Effect.Effect<B, GodwitError, Fabric> =>
    Effect.gen(function* () {
      const fabric = yield* Fabric;
      const options = { timeoutMs: REQUEST_TIMEOUT_MS };
      const reply = yield* fabric
        .request(subjects.node(node, verb), input.encode(request), options)
        .pipe(Effect.mapError(explain(verb, `node ${node}`)));
      return yield* output.decodeEffect(reply, "cli");
    });

const checkpointQuery = json(CheckpointQuery);
const checkpointInfo = json(CheckpointInfo);

/** Repeatable: the id says which save it is. */
export const save = askNode("save", json(SaveRequest), checkpointInfo);
export const querySave = askNode("query-save", checkpointQuery, checkpointInfo);
export const cancelSave = askNode("cancel-save", checkpointQuery, checkpointInfo);
export const restore = askNode("restore", json(RestoreRequest), checkpointInfo);
export const queryRestore = askNode("query-restore", checkpointQuery, checkpointInfo);
export const cancelRestore = askNode("cancel-restore", checkpointQuery, checkpointInfo);

/** The migration of this id; without one the newest of all, whichever coordinator it belongs to. Fails with `no-such-migration`. */
export const findMigration = Effect.fnUntraced(function* (
  migration: MigrationInfo["migration"] | undefined,
): Effect.fn.Return<MigrationInfo, GodwitError, Fabric> {
  if (migration !== undefined) return yield* queryMigrate({ migration });
  const newest = (yield* listMigrations({})).at(-1);
  if (newest !== undefined) return newest;
  return yield* new GodwitError({
    code: "no-such-migration",
    actor: "cli",
    step: "find the newest migration",
    reason: "there has been none yet",
  });
});

/**
 * Follows a migration until `until` holds for it (it has ended, unless told otherwise) or it has ended; `seen` gets every state that
 * comes by, the last one included. Fails when neither an event nor an answer comes for LOST_MS; the migration may go on then.
 */
export const follow = Effect.fnUntraced(function* (
  migration: MigrationInfo["migration"],
  seen: (info: MigrationInfo) => void,
  until: (info: MigrationInfo) => boolean = () => false,
): Effect.fn.Return<MigrationInfo, GodwitError, Fabric> {
  const fabric = yield* Fabric;
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const subscription = yield* fabric
        .subscribe(subjects.event({ ...ANY_ROUTE, migration }), { capacity: WAITING_EVENTS_MAX })
        .pipe(Effect.mapError(explain("watch")));
      const isOver = (info: MigrationInfo): boolean => isEnded(info.status) || until(info);
      // What happened before the subscription stood is asked for once.
      let latest = yield* queryMigrate({ migration });
      let heardAt = Date.now();
      seen(latest);
      while (!isOver(latest)) {
        const news = yield* subscription.takeAll.pipe(
          Effect.mapError(explain("watch")),
          Effect.timeoutOrElse({
            duration: QUIET_MS,
            orElse: () => Effect.succeed([]),
          }),
        );
        for (const { data } of news) {
          const event = events.decode(data);
          if (isMalformed(event)) continue;
          latest = event.info;
          heardAt = Date.now();
          seen(latest);
          if (isOver(latest)) break;
        }
        if (news.length > 0) continue;
        const answer = yield* Effect.result(queryMigrate({ migration }));
        if (answer._tag === "Success") {
          latest = answer.success;
          heardAt = Date.now();
          seen(latest);
        } else if (Date.now() - heardAt >= LOST_MS) return yield* answer.failure;
      }
      return latest;
    }),
  );
});
