/** The restores of one host: what users ask for them, and the fibers that carry them out. */
import type { OwnershipRegister, Settings } from "@godwit/actor";
import { type HostPlace, placeOnHost } from "@godwit/checkpoint";
import { type Endpoint, Fabric } from "@godwit/fabric";
import type { Registry } from "@godwit/guest";
import { withdrawAllExports } from "@godwit/memory";
import {
  CHECKPOINTS_LISTED_MAX,
  CheckpointInfo,
  CheckpointList,
  CheckpointListRequest,
  CheckpointQuery,
  fromError,
  GodwitError,
  isCheckpointOver,
  json,
  mbpsOf,
  type Parameters,
  proposeCheckpoint,
  RestoreRequest,
  subjects,
  toError,
} from "@godwit/protocol";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import type * as Scope from "effect/Scope";
import { isIdle, type Loader } from "./decisions/index.ts";
import { goOnRestoring } from "./lazy-restore.ts";
import { leftPagings } from "./paging-file.ts";
import { type Progress, restoreGuest } from "./restoring.ts";

const request = json(RestoreRequest);
const query = json(CheckpointQuery);
const listRequest = json(CheckpointListRequest);
const info = json(CheckpointInfo);
const infos = json(CheckpointList);
/** Restores that can be asked about, those that have ended included. */
const KNOWN_MAX = 64;

interface Known {
  readonly asked: RestoreRequest;
  readonly progress: Progress;
  endedAt: number;
  status: CheckpointInfo["status"];
  failure: CheckpointInfo["error"];
  cancel: Effect.Effect<void>;
}

const refuse = (code: GodwitError["code"], step: string, reason: string): GodwitError =>
  new GodwitError({ code, actor: "loader", side: "destination", step, reason });

/** The scope's end interrupts all restores; what was begun for them is undone. */
export const makeRestores = Effect.fnUntraced(function* (
  tools: { readonly settings: Settings; readonly registry: Registry; readonly register: OwnershipRegister },
  loader: Loader,
): Effect.fn.Return<ReadonlyArray<Endpoint>, never, Fabric | Scope.Scope> {
  const { settings } = tools;
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const known = new Map<string, Known>();
  withdrawAllExports(settings.runtimeDirectory, "fill");

  const begin = Effect.fnUntraced(function* (asked: RestoreRequest) {
    const parameters = proposeCheckpoint(asked);
    if ("code" in parameters) return yield* toError(parameters);
    const place = yield* Effect.try({
      try: () => placeOnHost(asked.uri, asked.id, settings.checkpointDirectory),
      catch: (cause) => refuse("checkpoint-failed", "find the place of the checkpoint", String(cause)),
    });
    if ("wrong" in place) return yield* refuse("invalid-parameter", "find the place of the checkpoint", place.wrong);
    if (!isIdle(loader, asked.guest))
      return yield* refuse(
        "migration-in-progress",
        "begin a restore",
        `guest ${asked.guest} is arriving at this node already`,
      );
    loader.restoring.add(asked.guest);
    const entry = knownOf(asked, Date.now(), "setup");
    known.set(asked.id, entry);
    for (const [id, old] of known) if (known.size > KNOWN_MAX && old.endedAt !== 0) known.delete(id);
    const fiber = yield* Effect.forkIn(carryOut(entry, place, parameters), scope);
    entry.cancel = Effect.suspend(() => (entry.progress.isBound ? Effect.void : Effect.asVoid(Fiber.interrupt(fiber))));
    yield* Effect.logInfo(`restoring guest ${asked.guest} from ${place.path}`);
  });

  const carryOut = (entry: Known, place: HostPlace, parameters: Parameters): Effect.Effect<void> =>
    restoreGuest(entry.asked, place, parameters, tools, entry.progress, (status) => {
      entry.status = status;
    }).pipe(
      Effect.provideService(Fabric, fabric),
      Effect.scoped,
      // Also when it is interrupted, where nothing that follows would be run.
      Effect.onExit((exit) => Effect.sync(() => ended(entry, exit))),
      Effect.exit,
      Effect.asVoid,
      Effect.ensuring(Effect.sync(() => loader.restoring.delete(entry.asked.guest))),
    );
  const ended = (entry: Known, exit: Exit.Exit<void, GodwitError>): void => {
    entry.endedAt = Date.now();
    if (Exit.isSuccess(exit)) {
      entry.status = "completed";
      return;
    }
    const isCancelled = Cause.hasInterruptsOnly(exit.cause);
    const error = isCancelled ? refuse("cancelled", "restore", "the restore was cancelled") : Cause.squash(exit.cause);
    entry.status = isCancelled ? "cancelled" : "failed";
    entry.failure = fromError(error instanceof GodwitError ? error : refuse("internal", "restore", String(error)));
  };

  // Guests that run already, and wait for pages.
  for (const facts of leftPagings(settings.runtimeDirectory)) {
    const entry = knownOf(facts.asked, facts.startedAt, "postcopy-active");
    known.set(facts.asked.id, entry);
    const { guest } = facts.asked;
    loader.restoring.add(guest);
    let isSettled = false;
    const settled = (): void => {
      // Another restore of that guest may have begun since.
      if (!isSettled) loader.restoring.delete(guest);
      isSettled = true;
    };
    yield* goOnRestoring(facts, tools, entry.progress, settled).pipe(
      Effect.scoped,
      Effect.ensuring(Effect.sync(settled)),
      Effect.tapError((error) => Effect.logError(error.message)),
      Effect.onExit((exit) => Effect.sync(() => ended(entry, exit))),
      Effect.exit,
      Effect.forkIn(scope),
    );
  }

  const shown = (id: string): Effect.Effect<Uint8Array, GodwitError> =>
    Effect.suspend(() => {
      const entry = known.get(id);
      if (entry === undefined)
        return Effect.fail(
          refuse("no-such-checkpoint", "look for a restore", `node ${settings.node} knows no restore ${id}`),
        );
      return Effect.succeed(info.encode(infoOf(entry, settings.node, Date.now())));
    });
  const ask = (data: Uint8Array, then: (entry: Known | undefined) => Effect.Effect<void>) =>
    Effect.gen(function* () {
      const { id } = yield* query.decodeEffect(data, "loader");
      yield* then(known.get(id));
      return yield* shown(id);
    });
  const handle = Effect.fnUntraced(function* (data: Uint8Array) {
    const asked = yield* request.decodeEffect(data, "loader");
    if (!known.has(asked.id)) yield* begin(asked);
    return yield* shown(asked.id);
  });
  const list = Effect.fnUntraced(function* (data: Uint8Array) {
    yield* listRequest.decodeEffect(data, "loader");
    const now = Date.now();
    const live = [...known.values()].filter(({ endedAt }) => endedAt === 0).slice(0, CHECKPOINTS_LISTED_MAX);
    return infos.encode(live.map((entry) => infoOf(entry, settings.node, now)));
  });
  return [
    { name: "list-restores", subject: subjects.node(settings.node, "list-restores"), handle: list },
    { name: "restore", subject: subjects.node(settings.node, "restore"), handle },
    {
      name: "query-restore",
      subject: subjects.node(settings.node, "query-restore"),
      handle: (data) => ask(data, () => Effect.void),
    },
    {
      name: "cancel-restore",
      subject: subjects.node(settings.node, "cancel-restore"),
      handle: (data) => ask(data, (entry) => entry?.cancel ?? Effect.void),
    },
  ];
});

const knownOf = (asked: RestoreRequest, startedAt: number, status: CheckpointInfo["status"]): Known => ({
  asked,
  progress: { startedAt, total: 0, remaining: 0, transferred: 0, checksums: "none", isBound: false, details: {} },
  endedAt: 0,
  status,
  failure: undefined,
  cancel: Effect.void,
});

const infoOf = ({ asked, endedAt, status, failure, progress }: Known, node: string, now: number): CheckpointInfo => {
  const totalMs = (endedAt === 0 ? now : endedAt) - progress.startedAt;
  return {
    id: asked.id,
    what: "restore",
    guest: asked.guest,
    node,
    uri: asked.uri,
    status,
    "total-time": totalMs,
    total: progress.total,
    remaining: isCheckpointOver({ status } as CheckpointInfo) ? 0 : progress.remaining,
    "dirty-sync-count": 1,
    transferred: progress.transferred,
    mbps: mbpsOf(progress.transferred, totalMs),
    checksums: progress.checksums,
    ...progress.details,
    ...(failure === undefined ? {} : { error: failure }),
  };
};
