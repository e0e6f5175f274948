/** The destination loader of one host: hears a coordinator's commands and keeps a session for each migration that arrives here. */
import {
  announceReady,
  bucketNeeds,
  directOptions,
  drainAtEnd,
  folderNeed,
  GODWIT_VERSION,
  holdHost,
  makeEndings,
  makeRefusals,
  messageBytesMax,
  openOwnershipRegister,
  type Settings,
} from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import { makeDirectDestination } from "@godwit/fabric/direct";
import { openRegistry } from "@godwit/guest";
import {
  ANY_ROUTE,
  DestinationCommand,
  DestinationReport,
  json,
  MigrationList,
  OWNERSHIP_BUCKET,
  subjects,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { infoOf, isHalfDone, type Loader, mayForget, route } from "./decisions/index.ts";
import { recoverGuest } from "./recovery-run.ts";
import { makeRestores } from "./restores.ts";
import { resumable } from "./resuming.ts";
import { type Session, type SessionTools, startSession } from "./session.ts";

const commands = json(DestinationCommand);
const reports = json(DestinationReport);
const infos = json(MigrationList);
const ACCEPTED = new TextEncoder().encode("{}");
const ACTOR = "loader";

/** Serves for ever. */
export const runLoader = Effect.fnUntraced(function* (
  settings: Settings,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  yield* holdHost(settings, ACTOR);
  yield* messageBytesMax(ACTOR);
  const tools: SessionTools = {
    settings,
    register: yield* openOwnershipRegister,
    registry: openRegistry(settings.runtimeDirectory),
    direct: yield* makeDirectDestination(directOptions(settings, ACTOR, fabric.isEncrypted)),
  };
  const loader: Loader = {
    node: settings.node,
    incarnation: settings.incarnation,
    destinations: new Map(),
    discarding: new Set(),
    restoring: new Set(),
  };
  const sessions = new Map<string, { readonly session: Session; readonly scope: Scope.Closeable }>();

  const endings = makeEndings();
  const refuse = makeRefusals(ACTOR);

  const end = Effect.fnUntraced(function* (migration: string) {
    const open = sessions.get(migration);
    sessions.delete(migration);
    if (open !== undefined) yield* Scope.close(open.scope, Exit.void);
  });

  const begin = Effect.fnUntraced(function* (destination: Session["destination"]) {
    yield* end(destination.migration);
    const scope = yield* Scope.make();
    const session = yield* startSession(destination, tools).pipe(
      Effect.provideService(Fabric, fabric),
      Effect.provideService(Scope.Scope, scope),
    );
    sessions.set(destination.migration, { session, scope });
    yield* Effect.logInfo(destination.life > 0 ? "going on where a former loader stopped" : "preparing the guest").pipe(
      Effect.annotateLogs({ migration: destination.migration, guest: destination.guest }),
    );
  });

  const handle = Effect.fnUntraced(function* (data: Uint8Array) {
    const command = yield* commands.decodeEffect(data, ACTOR);
    if (command._tag === "Conclude") endings.add(command.info);
    const now = Date.now();
    for (const old of [...loader.destinations.values()].filter((destination) => mayForget(destination, now))) {
      loader.destinations.delete(old.migration);
      yield* end(old.migration);
    }
    const routed = route(loader, command, now);
    switch (routed._tag) {
      case "Begin":
        yield* begin(routed.destination);
        break;
      case "Step":
        sessions.get(routed.destination.migration)?.session.dispatch(routed.event);
        break;
      case "Show":
        sessions.get(routed.destination.migration)?.session.dispatch({ _tag: "Heard" });
        sessions.get(routed.destination.migration)?.session.show();
        break;
      case "Answer":
        fabric.publish(subjects.destinationReport(command), reports.encode(routed.report));
        break;
      case "Ignore":
        break;
      case "Refuse":
        return yield* refuse(routed.reason);
    }
    return ACCEPTED;
  });
  yield* Effect.addFinalizer(() => Effect.forEach([...sessions.keys()], end, { discard: true }));

  // Before anybody can ask for them: who gets "unknown" for an answer gives the attempt up.
  for (const destination of yield* resumable(settings, tools.registry)) {
    loader.destinations.set(destination.migration, destination);
    yield* begin(destination);
  }
  const restores = yield* makeRestores(tools, loader);
  for (const spec of tools.registry.list())
    yield* Effect.forkScoped(recoverGuest(spec, settings, tools.register, tools.registry, loader));
  yield* fabric.serve({
    name: "godwit-loader",
    version: GODWIT_VERSION,
    description: `applies what arrives for the guests of node ${settings.node}`,
    endpoints: [
      { name: "command", subject: subjects.destination(settings.node), handle },
      tools.direct.endpoint("direct-lane", subjects.directLane({ ...ANY_ROUTE, destination: settings.node })),
      ...restores,
      {
        name: "query-migrate",
        subject: subjects.destinationQuery(settings.node),
        handle: () =>
          Effect.sync(() => {
            const ended = endings.list();
            const known = new Set(ended.map((info) => info.migration));
            const live = [...loader.destinations.values()].filter(({ migration }) => !known.has(migration as never));
            return infos.encode([...ended, ...live.map((destination) => infoOf(destination, Date.now()))]);
          }),
      },
    ],
  });
  const { node, incarnation, runtimeDirectory, guestDirectory } = settings;
  const needs = [folderNeed(runtimeDirectory), folderNeed(guestDirectory), ...(yield* bucketNeeds(OWNERSHIP_BUCKET))];
  yield* announceReady(settings, { role: ACTOR, node, id: "0", incarnation }, "destination loader", needs);
  yield* drainAtEnd(() => [...loader.destinations.values()].some(isHalfDone));
  return yield* Effect.never;
});
