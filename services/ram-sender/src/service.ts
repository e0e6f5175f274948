/** The RAM sender of one host: hears a coordinator's commands and keeps a session for each migration that leaves this host. */
import {
  announceReady,
  bucketNeeds,
  drainAtEnd,
  folderNeed,
  GODWIT_VERSION,
  holdHost,
  makeEndings,
  makeRefusals,
  messageBytesMax,
  openOwnershipRegister,
  type Settings,
  watchWorkers,
} from "@godwit/actor";
import { removeSourceSealingsBut } from "@godwit/encryption";
import { Fabric } from "@godwit/fabric";
import { openRegistry } from "@godwit/guest";
import { withdrawAllExports } from "@godwit/memory";
import {
  encodeMissingWords,
  GodwitError,
  json,
  KeyAnswer,
  KeyRequest,
  MISSING_WORDS_MAX,
  MigrationList,
  MissingPagesRequest,
  OWNERSHIP_BUCKET,
  PAGE_BYTES,
  packetPagesWithin,
  SourceCommand,
  SourceReport,
  subjects,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Scope from "effect/Scope";
import { makeAgreements } from "./agreements.ts";
import { infoOf, isHalfDone, route, type Sender, type Source } from "./decisions/index.ts";
import { recoverGuest } from "./recovery-run.ts";
import { releaseDevices } from "./releasing-devices.ts";
import { makeSaves } from "./saves.ts";
import { type Session, type SessionTools, startSession } from "./session.ts";

const commands = json(SourceCommand);
const reports = json(SourceReport);
const missingPages = json(MissingPagesRequest);
const keyRequests = json(KeyRequest);
const keyAnswers = json(KeyAnswer);
const infos = json(MigrationList);
const ACCEPTED = new TextEncoder().encode("{}");
const ACTOR = "ram-sender";

/** Serves for ever. */
export const runSender = Effect.fnUntraced(function* (
  settings: Settings,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  yield* holdHost(settings, ACTOR);
  const tools: SessionTools = {
    settings,
    register: yield* openOwnershipRegister,
    registry: openRegistry(settings.runtimeDirectory),
    agreements: makeAgreements(settings),
  };
  const sender: Sender = {
    node: settings.node,
    incarnation: settings.incarnation,
    itemPagesMax: packetPagesWithin(yield* messageBytesMax(ACTOR)),
    sources: new Map(),
    recovering: new Set(),
    saving: new Set(),
  };
  const sessions = new Map<string, { readonly session: Session; readonly scope: Scope.Closeable }>();
  const endings = makeEndings();
  const refuse = makeRefusals(ACTOR);
  const workers = new Set<string>();

  const begin = Effect.fnUntraced(function* (source: Parameters<typeof startSession>[0]) {
    const former = sessions.get(source.migration);
    if (former !== undefined) yield* Scope.close(former.scope, Exit.void);
    const scope = yield* Scope.make();
    const session = yield* startSession(source, tools).pipe(
      Effect.provideService(Fabric, fabric),
      Effect.provideService(Scope.Scope, scope),
    );
    sessions.set(source.migration, { session, scope });
    for (const worker of workers) session.dispatch({ _tag: "WorkerUp", worker });
    yield* Effect.logInfo("claiming the guest").pipe(
      Effect.annotateLogs({ migration: source.migration, guest: source.guest }),
    );
  });

  const handle = Effect.fnUntraced(function* (data: Uint8Array) {
    const command = yield* commands.decodeEffect(data, ACTOR);
    if (command._tag === "Conclude") endings.add(command.info);
    const routed = route(sender, command, Date.now());
    const session = sessions.get(command.migration);
    switch (routed._tag) {
      case "Begin":
        yield* begin(routed.source);
        break;
      case "Step":
        session?.session.dispatch(routed.event);
        break;
      case "Show":
        session?.session.show();
        break;
      case "Answer":
        fabric.publish(subjects.sourceReport(command), reports.encode(routed.report));
        break;
      case "Ignore":
        break;
      case "Refuse":
        return yield* refuse(routed.reason);
    }
    if (session !== undefined && !sender.sources.has(command.migration)) {
      sessions.delete(command.migration);
      yield* Scope.close(session.scope, Exit.void);
    }
    return ACCEPTED;
  });
  yield* Effect.addFinalizer(() =>
    Effect.forEach([...sessions.values()], (session) => Scope.close(session.scope, Exit.void), { discard: true }),
  );

  /** A postcopy that a former life had begun goes on under its key; once all guests are settled, no such key is needed. */
  const forgetOldSealings = (): void => {
    if (sender.recovering.size > 0) return;
    try {
      removeSourceSealingsBut(settings.runtimeDirectory, new Set(sender.sources.keys()));
    } catch {
      // They stay for the next life: files of this user alone, of attempts that are over.
    }
  };

  /** What settles, or has settled, what a former life left of each guest. */
  const recoveries = new Map<string, Fiber.Fiber<void>>();
  const settled = (guest: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      const recovery = recoveries.get(guest);
      return recovery === undefined ? Effect.void : Effect.asVoid(Fiber.await(recovery));
    });
  const saves = yield* makeSaves(tools, sender, workers, settled);
  // What a former life exported belongs to nobody any more; workers that still read it have it open.
  withdrawAllExports(settings.runtimeDirectory);
  yield* watchWorkers(settings.node, (news) => {
    if (news._tag === "Denied") return Effect.logError(`NATS denies this RAM sender: ${news.reason}`);
    if (news._tag === "WorkerUp") workers.add(news.worker);
    if (news._tag === "WorkerDown") workers.delete(news.worker);
    tellAll(sessions, news);
    saves.tell(news);
    return news._tag === "WorkerDown"
      ? Effect.logWarning(`multifd worker ${news.worker} is gone (${news.why}); its channels go to others`)
      : Effect.void;
  });
  for (const spec of tools.registry.list()) {
    sender.recovering.add(spec.name);
    const recovery = yield* Effect.forkScoped(
      Effect.ensuring(
        recoverGuest(spec, settings, tools.register, tools.registry, (guest, record, stage) =>
          Effect.provideService(releaseDevices(guest, record, stage, settings.node), Fabric, fabric),
        ),
        Effect.sync(() => {
          sender.recovering.delete(spec.name);
          forgetOldSealings();
        }),
      ),
    );
    recoveries.set(spec.name, recovery);
  }
  forgetOldSealings();
  yield* fabric.serve({
    name: "godwit-ram-sender",
    version: GODWIT_VERSION,
    description: `tracks and sends the memory of the guests of node ${settings.node}`,
    endpoints: [
      { name: "command", subject: subjects.source(settings.node), handle },
      ...saves.endpoints,
      {
        name: "missing-pages",
        subject: subjects.missingPages(settings.node, "*"),
        handle: (data, subject) =>
          Effect.flatMap(missingPages.decodeEffect(data, ACTOR), ({ migration, epoch, block, word }) => {
            const source = sender.sources.get(migration);
            const isAsker =
              source !== undefined && subject === subjects.missingPages(settings.node, source.route.destination);
            const bitmap = isAsker && source.epoch === epoch ? source.missing?.[block] : undefined;
            if (bitmap !== undefined)
              return Effect.succeed(encodeMissingWords(bitmap.words, word, wordsThatFit(source)));
            const reason = `migration ${migration}, epoch ${epoch}, leaves no pages of RAMBlock ${block} behind`;
            return Effect.fail(
              new GodwitError({ code: "wrong-state", actor: ACTOR, step: "name missing pages", reason }),
            );
          }),
      },
      {
        name: "agree-on-key",
        subject: subjects.keyAgreement(settings.node, "*"),
        handle: (data) =>
          keyRequests.decodeEffect(data, ACTOR).pipe(
            Effect.flatMap((request) => tools.agreements.answer(sender.sources.get(request.migration), request)),
            Effect.map(keyAnswers.encode),
          ),
      },
      {
        name: "query-migrate",
        subject: subjects.sourceQuery(settings.node),
        handle: () =>
          Effect.sync(() =>
            infos.encode([
              ...endings.list(),
              ...[...sender.sources.values()].map((source) => infoOf(source, Date.now())),
            ]),
          ),
      },
    ],
  });
  const { node, incarnation, runtimeDirectory } = settings;
  const needs = [folderNeed(runtimeDirectory), ...(yield* bucketNeeds(OWNERSHIP_BUCKET))];
  yield* announceReady(settings, { role: ACTOR, node, id: "0", incarnation }, "RAM sender", needs);
  yield* drainAtEnd(() => [...sender.sources.values()].some(isHalfDone));
  return yield* Effect.never;
});

/** An answer is no longer than the packets of this migration may be. */
const wordsThatFit = (source: Source | undefined): number =>
  Math.min(MISSING_WORDS_MAX, ((source?.itemPagesMax ?? 1) * PAGE_BYTES) / Uint32Array.BYTES_PER_ELEMENT);

type Sessions = ReadonlyMap<string, { readonly session: Session }>;

const tellAll = (sessions: Sessions, event: Parameters<Session["dispatch"]>[0]): void => {
  for (const { session } of sessions.values()) session.dispatch(event);
};
