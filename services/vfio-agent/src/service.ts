/** The VFIO agent of one host, in both roles: hears the RAM sender and the loader of its node, and keeps a session for each attempt. */
import {
  announceReady,
  directOptions,
  folderNeed,
  GODWIT_VERSION,
  holdHost,
  type Settings,
  watchWorkers,
} from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import { makeDirectDestination } from "@godwit/fabric/direct";
import { openRegistry } from "@godwit/guest";
import {
  ANY_ROUTE,
  GodwitError,
  type Incarnation,
  json,
  LoadReport,
  type OfferedDevice,
  PACKET_PAGES_MAX,
  type Route,
  SaveReport,
  subjects,
  VfioAnswer,
  VfioCommand,
  VfioQuestion,
} from "@godwit/protocol";
import { type DeviceSpec, openDevice } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import * as Semaphore from "effect/Semaphore";
import { removeAllArenas } from "./arena.ts";
import { type Known, route } from "./decisions/index.ts";
import { makeLatencies } from "./latencies.ts";
import { type LoadSession, startLoading } from "./load-session.ts";
import { type SaveSession, startSaving } from "./save-session.ts";

const ACTOR = "vfio-agent";
/** So often the agent looks whether the guests whose devices it saves are still here, ms. */
const LOOK_MS = 2000;
const ACCEPTED = new TextEncoder().encode("{}");
const commands = json(VfioCommand);
const questions = json(VfioQuestion);
const answers = json(VfioAnswer);
const saveReports = json(SaveReport);
const loadReports = json(LoadReport);

type SaveCommand = Extract<VfioCommand, { _tag: "Save" }>;
type LoadCommand = Extract<VfioCommand, { _tag: "Load" }>;
type Session = { readonly known: Known; readonly scope: Scope.Closeable } & (
  | { readonly role: "Save"; readonly save: SaveSession }
  | { readonly role: "Load"; readonly load: LoadSession }
);

/** Serves for ever. */
export const runVfioAgent = Effect.fnUntraced(function* (
  settings: Settings,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  yield* holdHost(settings, ACTOR);
  const registry = openRegistry(settings.runtimeDirectory);
  const latenciesOf = makeLatencies();
  const direct = yield* makeDirectDestination(directOptions(settings, ACTOR, fabric.isEncrypted));
  const sessions: Session[] = [];
  const workers = new Set<string>();
  removeAllArenas(settings.runtimeDirectory);

  const end = Effect.fnUntraced(function* (session: Session) {
    sessions.splice(sessions.indexOf(session), 1);
    yield* Scope.close(session.scope, Exit.void);
  });
  yield* Effect.addFinalizer(() => Effect.forEach([...sessions], end, { discard: true }));
  const saves = (): ReadonlyArray<SaveSession> =>
    sessions.flatMap((session) => (session.role === "Save" ? [session.save] : []));

  const specsOf = (guest: string): Effect.Effect<ReadonlyArray<DeviceSpec>, GodwitError> =>
    Effect.try({
      try: () => registry.find(guest)?.devices ?? [],
      catch: (cause) => refusal("read the guest's devices", cause instanceof Error ? cause.message : String(cause)),
    });

  const begin = Effect.fnUntraced(function* (command: VfioCommand) {
    const scope = yield* Scope.make();
    return yield* Effect.onError(beginIn(scope, command), () => Scope.close(scope, Exit.void));
  });
  const beginIn = Effect.fnUntraced(function* (scope: Scope.Closeable, command: VfioCommand) {
    const provided = <A>(work: Effect.Effect<A, GodwitError, Fabric | Scope.Scope>) =>
      work.pipe(Effect.provideService(Fabric, fabric), Effect.provideService(Scope.Scope, scope));
    const specs = yield* specsOf(command.guest);
    const session: Session =
      command._tag === "Save"
        ? knownSave(
            scope,
            yield* provided(startSaving(saveOptions(command, specs), settings, latenciesOf(command.guest))),
          )
        : knownLoad(
            scope,
            yield* provided(
              Effect.flatMap(loadOptions(command, specs), (options) =>
                startLoading(options, settings, latenciesOf(command.guest), direct),
              ),
            ),
          );
    sessions.push(session);
    if (session.role === "Save") for (const worker of workers) session.save.dispatch({ _tag: "WorkerUp", worker });
    yield* Effect.logInfo(command._tag === "Save" ? "saving the guest's devices" : "loading the guest's devices").pipe(
      Effect.annotateLogs({ migration: command.migration, guest: command.guest }),
    );
    return session;
  });

  /** A command that is said again while its session begins must not begin a second one: they would tear the devices from each other. */
  const turns = new Map<string, Semaphore.Semaphore>();
  const inTurn = ({ _tag, guest }: VfioCommand): Semaphore.Semaphore => {
    const key = `${_tag} ${guest}`;
    const turn = turns.get(key) ?? Semaphore.makeUnsafe(1);
    turns.set(key, turn);
    return turn;
  };

  const handle = Effect.fnUntraced(function* (data: Uint8Array) {
    const command = yield* commands.decodeEffect(data, ACTOR);
    yield* inTurn(command).withPermit(follow(command));
    return ACCEPTED;
  });
  const follow = Effect.fnUntraced(function* (command: VfioCommand) {
    const routed = route(
      sessions.map(({ known }) => known),
      settings.incarnation,
      command,
    );
    switch (routed._tag) {
      case "Ignore":
        break;
      case "Unknown":
        sayUnknown(command);
        break;
      case "Begin": {
        for (const old of routed.replaces) {
          const session = sessions.find(({ known }) => known === old);
          if (session !== undefined) yield* end(session);
        }
        tell(yield* begin(command), command);
        break;
      }
      case "Step": {
        const session = sessions.find(({ known }) => known === routed.session);
        if (session !== undefined) tell(session, command);
        break;
      }
    }
  });
  const sayUnknown = (command: VfioCommand): void => {
    const { _tag, migration, epoch } = command;
    const report = { migration, epoch, incarnation: settings.incarnation as Incarnation, devices: [] };
    if (_tag === "Save")
      fabric.publish(
        subjects.saveReport(routeOf(command, settings.node)),
        saveReports.encode({ ...report, bandwidth: 0, "parameters-revision": 0, stage: "unknown" }),
      );
    else
      fabric.publish(
        subjects.loadReport(routeOf(command, settings.node)),
        loadReports.encode({ ...report, stage: "unknown" }),
      );
  };

  /** A device of the kernel can be open once: what a session holds is not opened beside it. What a device can do stays as it is. */
  const described = new Map<string, Effect.Effect<OfferedDevice, GodwitError>>();
  const describeOnce = Effect.fnUntraced(function* (spec: DeviceSpec) {
    const key = JSON.stringify(spec);
    const fresh = yield* Effect.cached(describe(spec));
    // A question that is asked again while the first one waits for the device shares its answer: two that open it would cut each other off.
    const shared = described.get(key) ?? fresh;
    described.set(key, shared);
    return yield* Effect.tapError(shared, () => Effect.sync(() => described.delete(key)));
  });

  const question = Effect.fnUntraced(function* (data: Uint8Array) {
    const asked = yield* questions.decodeEffect(data, ACTOR);
    if (asked._tag === "Describe") {
      const devices = yield* Effect.forEach(yield* specsOf(asked.guest), describeOnce, { concurrency: 4 });
      return answers.encode({ _tag: "Devices", devices });
    }
    const save = saves().find(({ saving }) => saving.migration === asked.migration && saving.epoch === asked.epoch);
    if (save === undefined) return yield* refusal("ask for dirty pages", "this agent was restarted");
    return answers.encode(yield* save.dirtyPages(asked.sync, asked.from));
  });

  // The sender that would have said it may be gone: a guest that is not here any more has no devices here.
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.delay(
        // Whoever is there then, not now.
        Effect.suspend(() =>
          Effect.forEach(saves(), (session) =>
            Effect.map(
              Effect.orElseSucceed(specsOf(session.saving.guest), () => [null]),
              (specs) => {
                if (specs.length === 0) session.dispatch({ _tag: "GuestGone" });
              },
            ),
          ),
        ),
        LOOK_MS,
      ),
    ),
  );
  yield* watchWorkers(settings.node, (news) => {
    if (news._tag === "Denied") return Effect.logError(`NATS denies this VFIO agent: ${news.reason}`);
    if (news._tag === "WorkerUp") workers.add(news.worker);
    if (news._tag === "WorkerDown") workers.delete(news.worker);
    for (const session of saves()) session.dispatch(news);
    return Effect.void;
  });
  yield* fabric.serve({
    name: "godwit-vfio-agent",
    version: GODWIT_VERSION,
    description: `moves the VFIO devices of the guests of node ${settings.node}`,
    endpoints: [
      { name: "command", subject: subjects.vfio(settings.node), handle },
      { name: "question", subject: subjects.vfioQuestion(settings.node), handle: question },
      direct.endpoint("direct-lane", subjects.deviceDirectLane({ ...ANY_ROUTE, destination: settings.node })),
    ],
  });
  const { node, incarnation, runtimeDirectory } = settings;
  yield* announceReady(settings, { role: ACTOR, node, id: "0", incarnation }, "VFIO agent", [
    folderNeed(runtimeDirectory),
  ]);
  return yield* Effect.never;
});

const refusal = (step: string, reason: string): GodwitError =>
  new GodwitError({ code: "device-failed", actor: ACTOR, step, reason });

/** Which of the two nodes the agent is at, its role says. */
const routeOf = ({ _tag, migration, peer }: VfioCommand, node: string): Route =>
  _tag === "Save" ? { migration, source: node, destination: peer } : { migration, source: peer, destination: node };

const saveOptions = (command: SaveCommand, specs: ReadonlyArray<DeviceSpec>) => ({
  migration: command.migration,
  peer: command.peer,
  epoch: command.epoch,
  guest: command.guest,
  parameters: command.parameters,
  parametersRevision: command["parameters-revision"],
  want: command.stage,
  specs,
  blockBytes: command["block-bytes"],
  packetPagesMax: command["packet-pages-max"] ?? PACKET_PAGES_MAX,
});

/** Devices are known by their names; the loader has compared what both sides have. */
const loadOptions = (command: LoadCommand, specs: ReadonlyArray<DeviceSpec>) =>
  Effect.gen(function* () {
    const devices = [];
    for (const offered of command.devices) {
      const spec = specs.find(({ name }) => name === offered.device);
      if (spec === undefined)
        return yield* refusal("find the devices", `guest ${command.guest} has no device ${offered.device} here`);
      devices.push({ offered, spec });
    }
    return {
      migration: command.migration,
      peer: command.peer,
      epoch: command.epoch,
      guest: command.guest,
      parameters: command.parameters,
      want: command.stage,
      devices,
    };
  });

const knownSave = (scope: Scope.Closeable, save: SaveSession): Session => {
  const { migration, epoch, guest } = save.saving;
  return { role: "Save", save, scope, known: { role: "Save", migration, epoch, guest } };
};
const knownLoad = (scope: Scope.Closeable, load: LoadSession): Session => {
  const { migration, epoch, guest } = load.loading;
  return { role: "Load", load, scope, known: { role: "Load", migration, epoch, guest } };
};

const tell = (session: Session, command: VfioCommand): void => {
  if (session.role === "Save" && command._tag === "Save") {
    const { stage, parameters } = command;
    session.save.dispatch({ _tag: "Wanted", stage, parameters, parametersRevision: command["parameters-revision"] });
    session.save.show();
  }
  if (session.role === "Load" && command._tag === "Load") {
    const memoryLoaded = command["memory-loaded"];
    session.load.dispatch({ _tag: "Wanted", stage: command.stage, streams: command.streams, memoryLoaded });
    session.load.show();
  }
};

const describe = (spec: DeviceSpec): Effect.Effect<OfferedDevice, GodwitError> =>
  Effect.scoped(openDevice(spec)).pipe(
    Effect.map(({ features, dmaLogging }) => ({
      device: spec.name,
      provider: spec.provider,
      p2p: features.p2p,
      "pre-copy": features.preCopy,
      "dirty-logging": dmaLogging !== null,
      ...(spec.provider === "simulated" && spec.model !== undefined ? { model: spec.model } : {}),
    })),
    Effect.mapError(({ message }) => refusal("describe the guest's devices", message)),
  );
