/** The saves of one host: what users ask for them, and the sessions that carry them out. */
import { type HostPlace, placeOnHost, removeDeserted } from "@godwit/checkpoint";
import { type Endpoint, Fabric } from "@godwit/fabric";
import {
  CHECKPOINTS_LISTED_MAX,
  CheckpointInfo,
  CheckpointList,
  CheckpointListRequest,
  CheckpointQuery,
  GodwitError,
  json,
  type OwnershipRecord,
  type Parameters,
  proposeCheckpoint,
  SaveRequest,
  subjects,
  toError,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as FiberSet from "effect/FiberSet";
import * as Scope from "effect/Scope";
import { guestBusy, infoOfSave, makeSave, type SaveEvent, type Sender } from "./decisions/index.ts";
import { type SaveSession, startSave } from "./save-session.ts";
import type { SessionTools } from "./session.ts";

const request = json(SaveRequest);
const query = json(CheckpointQuery);
const listRequest = json(CheckpointListRequest);
const info = json(CheckpointInfo);
const infos = json(CheckpointList);
/** A save waits so long for a sender that has just been started, ms: whoever asks still waits for the answer then. */
const SETTLING_MS = 2000;
/** Saves that have ended and can still be asked about. */
const ENDINGS_MAX = 64;

/** What happens to workers, and to the way to them. */
export type WorkerEvent = Extract<SaveEvent, { readonly _tag: "WorkerUp" | "WorkerDown" | "LinkRestored" }>;

export interface Saves {
  readonly endpoints: ReadonlyArray<Endpoint>;
  readonly tell: (event: WorkerEvent) => void;
}

const refuse = (code: GodwitError["code"], step: string, reason: string): GodwitError =>
  new GodwitError({ code, actor: "ram-sender", side: "source", step, reason });

/**
 * `workers`: those that are up, kept by the caller. `settled` waits until nothing of an earlier life is left to settle of a guest. The scope's
 * end ends all saves.
 */
export const makeSaves = Effect.fnUntraced(function* (
  { settings, registry, register }: SessionTools,
  sender: Sender,
  workers: ReadonlySet<string>,
  settled: (guest: string) => Effect.Effect<void>,
): Effect.fn.Return<Saves, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const { checkpointDirectory } = settings;
  const home = { settings, register };
  const sessions = new Map<string, { readonly session: SaveSession; readonly scope: Scope.Closeable }>();
  const endings = new Map<string, CheckpointInfo>();
  removeDeserted(checkpointDirectory);
  yield* Effect.addFinalizer(() =>
    Effect.forEach([...sessions.values()], ({ scope }) => Scope.close(scope, Exit.void), { discard: true }),
  );

  /** What has ended is kept as its last word, and its session goes. */
  const sweep = Effect.gen(function* () {
    for (const [id, { session, scope }] of sessions) {
      if (session.save.phase._tag !== "Ended") continue;
      sessions.delete(id);
      sender.saving.delete(session.save.guest);
      endings.set(id, infoOfSave(session.save, Date.now()));
      for (const oldest of [...endings.keys()].slice(0, Math.max(0, endings.size - ENDINGS_MAX)))
        endings.delete(oldest);
      yield* Scope.close(scope, Exit.void);
    }
  });

  const run = yield* FiberSet.makeRuntime<never>();
  const ended = (): void => void run(sweep);

  /** Saves that are being begun, and where they go: requests are handled side by side. */
  const beginning = new Map<string, string>();

  const save = Effect.fnUntraced(function* (data: Uint8Array) {
    const asked = yield* request.decodeEffect(data, "ram-sender");
    // First of all: from here on nothing waits until the guest and the place are taken.
    yield* Effect.timeoutOption(settled(asked.guest), SETTLING_MS);
    yield* sweep;
    if (beginning.has(asked.id))
      return yield* refuse("wrong-state", "begin a save", `save ${asked.id} is being begun; ask how it stands`);
    const known = endings.get(asked.id) ?? sessions.get(asked.id);
    if (known === undefined) yield* begin(asked);
    return yield* shown(asked.id);
  });
  const begin = Effect.fnUntraced(function* (asked: SaveRequest) {
    const parameters = proposeCheckpoint(asked);
    if ("code" in parameters) return yield* toError(parameters);
    const place = yield* Effect.try({
      try: () => placeOnHost(asked.uri, asked.id, checkpointDirectory),
      catch: (cause) => refuse("checkpoint-failed", "find the place of the checkpoint", String(cause)),
    });
    if ("wrong" in place) return yield* refuse("invalid-parameter", "find the place of the checkpoint", place.wrong);
    const isUsed =
      [...beginning.values()].includes(asked.uri) ||
      [...sessions.values()].some(({ session }) => session.save.uri === asked.uri);
    if (isUsed) return yield* refuse("wrong-state", "begin a save", `${asked.uri} is being written by another save`);
    if (sender.recovering.has(asked.guest))
      return yield* refuse(
        "wrong-state",
        "begin a save",
        `what an earlier life left of guest ${asked.guest} is being settled; ask again`,
      );
    const busy = guestBusy(sender, asked.guest, null);
    if (busy !== null) return yield* toError(busy);
    // Before anything is waited for: a claim that comes meanwhile must find the guest taken.
    sender.saving.add(asked.guest);
    beginning.set(asked.id, asked.uri);
    yield* start(asked, place, parameters).pipe(
      Effect.onError(() => Effect.sync(() => sender.saving.delete(asked.guest))),
      Effect.ensuring(Effect.sync(() => beginning.delete(asked.id))),
    );
  });
  const start = Effect.fnUntraced(function* (asked: SaveRequest, place: HostPlace, parameters: Parameters) {
    yield* requireHome(asked, home);
    const scope = yield* Scope.make();
    const { id, guest, uri, stop, checksums } = asked;
    const upload = place.object !== null;
    const made = makeSave({
      id,
      guest,
      node: settings.node,
      uri,
      parameters,
      stop,
      checksums,
      upload,
      now: Date.now(),
    });
    const session = yield* startSave(made, place, { settings, registry }, ended).pipe(
      Effect.provideService(Fabric, fabric),
      Effect.provideService(Scope.Scope, scope),
    );
    sessions.set(id, { session, scope });
    for (const worker of workers) session.dispatch({ _tag: "WorkerUp", worker });
    yield* Effect.logInfo(`saving guest ${guest} into ${place.path}`);
  });
  const shown = Effect.fnUntraced(function* (id: string) {
    yield* sweep;
    const live = sessions.get(id);
    const found = live === undefined ? endings.get(id) : infoOfSave(live.session.save, Date.now());
    if (found === undefined)
      return yield* refuse("no-such-checkpoint", "look for a save", `node ${settings.node} knows no save ${id}`);
    return info.encode(found);
  });
  const ask = (data: Uint8Array, then: (id: string) => void): Effect.Effect<Uint8Array, GodwitError> =>
    Effect.gen(function* () {
      const { id } = yield* query.decodeEffect(data, "ram-sender");
      then(id);
      return yield* shown(id);
    });

  const list = Effect.fnUntraced(function* (data: Uint8Array) {
    yield* listRequest.decodeEffect(data, "ram-sender");
    yield* sweep;
    const live = [...sessions.values()].slice(0, CHECKPOINTS_LISTED_MAX);
    return infos.encode(live.map(({ session }) => infoOfSave(session.save, Date.now())));
  });

  return {
    tell: (event) => {
      for (const { session } of sessions.values()) session.dispatch(event);
    },
    endpoints: [
      { name: "save", subject: subjects.node(settings.node, "save"), handle: save },
      {
        name: "query-save",
        subject: subjects.node(settings.node, "query-save"),
        handle: (data) => ask(data, () => {}),
      },
      {
        name: "cancel-save",
        subject: subjects.node(settings.node, "cancel-save"),
        handle: (data) => ask(data, (id) => sessions.get(id)?.session.dispatch({ _tag: "Cancel" })),
      },
      { name: "list-saves", subject: subjects.node(settings.node, "list-saves"), handle: list },
    ],
  };
});

/**
 * The record says where a guest ran last, and with that where it may be restored. One that was never moved has none, and gets it here:
 * afterwards nobody needs to guess whether a host that does not answer still runs it.
 */
const requireHome: (
  asked: Pick<SaveRequest, "id" | "guest">,
  tools: Pick<SessionTools, "settings" | "register">,
) => Effect.Effect<void, GodwitError> = Effect.fnUntraced(function* ({ id, guest }, { settings, register }) {
  const step = "look at the ownership record";
  const entry = yield* register.read(guest);
  if (entry === "Unknown")
    return yield* refuse("ownership-unknown", step, `the ownership record of guest ${guest} cannot be read`);
  if (entry !== null && entry.record.node !== settings.node)
    return yield* refuse("wrong-state", step, `guest ${guest} belongs to node ${entry.record.node}; save it there`);
  if (entry !== null) return;
  const record: OwnershipRecord = {
    state: "source",
    epoch: 1 as OwnershipRecord["epoch"],
    op: `${settings.incarnation}-save-${id}`,
    migration: id,
    node: settings.node,
    open: false,
    wasRunning: true,
  };
  const outcome = yield* register.write(guest, record, 0);
  // Somebody else was faster: what they wrote says whose it is.
  if (outcome === "Lost") return yield* requireHome({ id, guest }, { settings, register });
  if (outcome === "Unknown")
    return yield* refuse(
      "ownership-unknown",
      step,
      `the ownership record of guest ${guest} cannot be written; save again`,
    );
});
