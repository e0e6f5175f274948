/** One migration that arrives at this host: feeds its decisions with events and carries out what they want. */
import {
  answering,
  asGodwitError,
  askRecord,
  hostMicros,
  makeAlarm,
  makeEventLoop,
  type OwnershipRegister,
  openMessages,
  type Settings,
} from "@godwit/actor";
import { CLOSED, type Opener } from "@godwit/encryption";
import { Fabric, letGo, type Message } from "@godwit/fabric";
import type { DirectDestination } from "@godwit/fabric/direct";
import { type Guest, type GuestWatch, type Registry, watchGuest } from "@godwit/guest";
import { digestFile, PAGE_BYTES, type RamBlock } from "@godwit/memory";
import {
  countPacket,
  DestinationReport,
  fromError,
  GodwitError,
  isMalformed,
  json,
  type Lane,
  Switching,
  subjects,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Scope from "effect/Scope";
import { listenToAgent, tellAgent } from "./agent.ts";
import type { Receiver } from "./applying.ts";
import {
  begin,
  type Destination,
  type DestinationEffect,
  type DestinationEvent,
  Fence,
  isOver,
  type LocalStep,
  reportOf,
  step,
} from "./decisions/index.ts";
import { makePostcopySession } from "./postcopy-session.ts";
import { prepare } from "./preparing.ts";
import { receive } from "./receiving.ts";
import type { SessionFile } from "./session-file.ts";

/**
 * Packets that may wait: the source has at most 32 MiB unacknowledged, which is so many packets if each held four pages; what
 * comes on top is dropped and sent again.
 */
const WAITING_PACKETS_MAX = (32 * 1024 ** 2) / (4 * PAGE_BYTES);
const WAITING_SWITCHING_MAX = 16;
const reports = json(DestinationReport);
const switching = json(Switching);

export interface Session {
  readonly destination: Destination;
  readonly dispatch: (event: DestinationEvent) => void;
  readonly show: () => void;
}

/** What this host has, for whatever arrives at it. */
export interface HostTools {
  readonly settings: Settings;
  readonly register: OwnershipRegister;
  readonly registry: Registry;
}
export interface SessionTools extends HostTools {
  readonly direct: DirectDestination;
}

/** Starts the session; it works until the scope ends. */
export const startSession = Effect.fnUntraced(function* (
  destination: Destination,
  tools: SessionTools,
): Effect.fn.Return<Session, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const { register, registry } = tools;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  const fork = (work: Effect.Effect<unknown>): void => void run(Effect.forkIn(work, scope));

  let guest: Guest | null = null;
  let watch: GuestWatch | null = null;
  let receiver: Receiver | null = null;
  let file: SessionFile | null = null;
  let opener: Opener = CLOSED;
  let blocks: ReadonlyArray<RamBlock> = [];

  const dispatch = makeEventLoop<DestinationEvent>((event) => {
    for (const effect of step(destination, event, Date.now(), hostMicros())) perform(effect);
    if (isOver(destination)) {
      forgetFiles();
      closeLanding();
    }
  });
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  const closeReceiver = (): void => {
    receiver?.close();
    receiver = null;
  };
  const landing = yield* landFor(destination, tools.direct);
  let isLanded = landing !== null;
  const closeLanding = (): void => {
    if (isLanded && landing !== null) fork(landing.close);
    isLanded = false;
  };
  /** The session is over: nobody shall go on with it. */
  const forgetFiles = (): void => {
    if (file === null) return;
    destination.fence = Fence.close(destination.fence);
    receiver?.removeDeviceState();
    closeReceiver();
    fork(postcopy.end);
    file.remove();
    file = null;
  };
  // A loader that is stopped leaves what its successor goes on with.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      alarm.stop();
      closeReceiver();
      destination.fence = Fence.close(destination.fence);
      file?.close();
      file = null;
    }),
  );
  // Made after that finalizer, so that it ends before a successor can have the session.
  const postcopy = yield* makePostcopySession(destination, {
    settings: tools.settings,
    direct: tools.direct,
    dispatch,
    open: (messages) => opened(messages),
    incoming: () => (guest === null || receiver === null || file === null ? null : { guest, receiver, file, blocks }),
  });

  const perform = (effect: DestinationEffect): void => {
    switch (effect._tag) {
      case "Local":
        return fork(
          Effect.matchEager(explained(answering("loader", effect.step)(Effect.suspend(() => localWork(effect.step)))), {
            onSuccess: dispatch,
            onFailure: (error) =>
              dispatch({
                _tag: "LocalFailed",
                step: effect.step,
                failure: { ...fromError(error), side: "destination" },
              }),
          }),
        );
      case "ReadRecord":
        return fork(Effect.map(askRecord(register, destination.guest, effect), dispatch));
      case "WriteRecord":
        // The record is closed once the guest was started: it has arrived.
        if (!effect.record.open) closing();
        return fork(Effect.map(askRecord(register, destination.guest, effect), dispatch));
      case "AskMissing":
        return postcopy.askMissing();
      case "Fetch":
        return postcopy.fetch();
      case "SayToFetching":
        return postcopy.say(effect.word);
      case "TuneFetching":
        return postcopy.tune();
      case "TellAgent":
        return fork(Effect.provideService(tellAgent(destination, tools.settings.node, effect.stage), Fabric, fabric));
      case "Report":
        return show();
      case "WakeAt":
        return alarm.wakeAt(effect.at);
    }
  };
  const explained = <A>(work: Effect.Effect<A, GodwitError>): Effect.Effect<A, GodwitError> =>
    Effect.catch(work, (error) => {
      const failed = Effect.fail(error);
      return watch === null ? failed : watch.explain(failed);
    });

  const closing = (): void => {
    try {
      registry.settle(destination.guest);
    } catch (error) {
      // The guest runs here whatever the registry says, and the record shall say so; the next life of this loader settles it.
      fork(Effect.logError(`guest ${destination.guest} is still noted as arriving: ${error}`));
    }
    const { failure } = destination;
    if (failure !== null)
      fork(Effect.logError(`the guest was handed over and is lost, no other one is started: ${failure.reason}`));
  };

  const show = (): void =>
    void fabric.publish(
      subjects.destinationReport(destination.route),
      reports.encode({ ...reportOf(destination), "max-payload": fabric.maxPayloadBytes }),
    );

  const withGuest = <A>(use: (guest: Guest) => Effect.Effect<A, GodwitError>): Effect.Effect<A, GodwitError> =>
    Effect.suspend(() => (guest === null ? Effect.never : use(guest)));

  const localWork = (localStep: LocalStep): Effect.Effect<DestinationEvent, GodwitError> => {
    switch (localStep) {
      case "prepare":
        return prepareGuest;
      case "expect-pages":
        return Effect.as(postcopy.expectPages, { _tag: "PagesExpected" } as const);
      case "give-up-pages":
        // The guest's end is what is told of it.
        return Effect.as(withGuest(endForGood), { _tag: "Heard" } as const);
      case "load-device-state":
        return Effect.as(withGuest(loadDeviceState), { _tag: "DeviceStateLoaded" } as const);
      case "resume":
        return Effect.as(
          withGuest((opened) => opened.resume),
          { _tag: "Resumed" } as const,
        ).pipe(
          Effect.tapError((error) =>
            Effect.logError(`guest ${destination.guest} holds everything and does not start: ${error.message}`),
          ),
        );
      case "discard":
        return postcopy.end.pipe(
          Effect.andThen(
            Effect.suspend(() => {
              closeReceiver();
              return guest === null ? Effect.void : guest.discard;
            }),
          ),
          Effect.tap(() => forgetIfGone(registry, destination.guest)),
          Effect.as({ _tag: "Discarded" } as const),
        );
    }
  };

  /** One that waits for no pages any more, or never did, is stopped first. */
  const endForGood = (opened: Guest): Effect.Effect<void, GodwitError> =>
    postcopy
      .giveUp(destination.failure?.reason ?? "its pages cannot be had")
      .pipe(Effect.catch(() => Effect.andThen(opened.pause, opened.discard)));

  const loadDeviceState = (opened: Guest): Effect.Effect<void, GodwitError> =>
    Effect.gen(function* () {
      // A former life of this loader has loaded it, and died before it could commit.
      if (destination.life > 0 && (yield* opened.describe).runState !== "incoming") return;
      const path = receiver?.deviceStatePath ?? "";
      const digest = yield* Effect.try({
        try: () => digestFile(path),
        catch: asGodwitError("loader", "read the device state"),
      });
      const expected = destination.promise?.manifest.deviceDigest;
      if (digest !== expected) {
        return yield* new GodwitError({
          code: "device-state-failed",
          actor: "loader",
          side: "destination",
          step: "check the device state",
          reason: `its crc32 is ${digest.toString(16)}, the source saved ${expected?.toString(16)}`,
        });
      }
      yield* opened.loadDeviceState(path);
    });

  const prepareGuest: Effect.Effect<DestinationEvent, GodwitError> = Effect.gen(function* () {
    yield* checkLane(destination, landing?.obstacle ?? null);
    const prepared = yield* prepare(destination, tools);
    ({ guest, receiver, file, blocks, opener } = prepared);
    if (opener.isSealed) destination.refusedPackets = opener.refusals;
    const watching = yield* watchGuest(prepared.guest, {
      guest: destination.guest,
      actor: "loader",
      side: "destination",
    });
    watch = watching;
    fork(Effect.map(watching.ended, (error) => dispatch({ _tag: "GuestEnded", failure: fromError(error) })));
    return {
      _tag: "Prepared",
      words: prepared.file.words,
      loaded: prepared.loaded,
      listening: prepared.listening,
    } as const;
  }).pipe(Effect.provideService(Scope.Scope, scope), Effect.provideService(Fabric, fabric));

  /** Nothing looks at a packet before this. */
  const opened = (arrived: ReadonlyArray<Message>): ReadonlyArray<Message> => {
    const { messages, refused, complaint } = openMessages(opener, arrived);
    destination.fence.dropped += refused;
    if (complaint !== null)
      fork(
        Effect.annotateLogs(Effect.logWarning(`a packet was refused: ${complaint}; further ones are only counted`), {
          migration: destination.migration,
        }),
      );
    return messages;
  };

  /** Applies a batch; a full file system ends the attempt, with that reason. */
  const take = (arrived: ReadonlyArray<Message>, lane: Lane): Effect.Effect<void> =>
    Effect.suspend(() => {
      const messages = opened(arrived);
      const { lanes } = destination;
      if (lanes !== null) for (const { subject } of messages) countPacket(lanes, "ram", lane, subject);
      const taken = postcopy.take(messages);
      if (taken !== null) return taken;
      if (receiver === null) return Effect.void;
      try {
        const { acknowledgements, complaint } = receive(destination, receiver, messages);
        for (const bytes of acknowledgements) fabric.publish(subjects.acknowledgement(destination.route), bytes);
        dispatch({ _tag: "PacketsApplied" });
        return complaint === null ? Effect.void : Effect.logWarning(`a packet was dropped: ${complaint}`);
      } catch (error) {
        const failure = fromError(asGodwitError("loader", "apply pages")(error));
        dispatch({ _tag: "LocalFailed", step: "apply", failure: { ...failure, side: "destination" } });
        return Effect.void;
      } finally {
        for (const { data } of messages) letGo(data);
      }
    });

  const packets = yield* Effect.orDie(
    fabric.subscribe(subjects.channels(destination.route), { capacity: WAITING_PACKETS_MAX, plane: "bulk" }),
  );
  yield* Effect.forkScoped(Effect.forever(Effect.flatMap(packets.takeAll, (arrived) => take(arrived, "nats"))));
  if (landing !== null)
    yield* Effect.forkScoped(Effect.forever(Effect.flatMap(landing.takeAll, (arrived) => take(arrived, "direct"))));
  const told = yield* Effect.orDie(
    fabric.subscribe(subjects.switching(destination.route), { capacity: WAITING_SWITCHING_MAX }),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(told.takeAll, (messages) => {
        for (const message of messages) {
          const word = switching.decode(message.data);
          if (!isMalformed(word)) dispatch({ _tag: "SwitchingTold", epoch: word.epoch });
        }
      }),
    ),
  );
  yield* listenToAgent(destination, dispatch);
  for (const effect of begin) perform(effect);
  return { destination, dispatch, show };
});

/** Where packets of connections arrive; null: the migration wants none. */
const landFor = ({ parameters, route, epoch }: Destination, direct: DirectDestination) =>
  parameters.lane === "nats"
    ? Effect.succeed(null)
    : direct.land(
        { route, epoch, purpose: "ram", subjectOf: (channel) => subjects.channel(route, channel) },
        subjects.directLane(route),
      );

/** R9. One that began with connections goes on without them: only a new attempt is refused. */
const checkLane = (
  { parameters, life, guest }: Destination,
  obstacle: string | null,
): Effect.Effect<void, GodwitError> => {
  if (obstacle === null) return Effect.void;
  if (parameters.lane !== "direct" || life > 0)
    return Effect.logInfo(`packets of guest ${guest} come by NATS: ${obstacle}`);
  return Effect.fail(
    new GodwitError({
      code: "incompatible",
      actor: "loader",
      side: "destination",
      step: "compare both sides",
      reason: `guest ${guest} shall be moved by the direct lane, and its destination has none`,
      differences: [{ what: "lane", mine: obstacle, yours: "direct" }],
    }),
  );
};

/** A builtin destination that was discarded is a process that has ended; a QEMU keeps waiting under its name. */
const forgetIfGone = (registry: Registry, name: string): Effect.Effect<void> =>
  Effect.sync(() => {
    if (registry.find(name)?.driver === "builtin") registry.remove(name);
    else registry.settle(name);
  });
