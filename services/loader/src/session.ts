/** One migration that arrives at this host: feeds its decisions with events and carries out what they want. */
import { join } from "node:path";
import {
  asGodwitError,
  askRecord,
  makeAlarm,
  makeEventLoop,
  type OwnershipRegister,
  type Settings,
} from "@godwit/actor";
import { Fabric, letGo, type Message } from "@godwit/fabric";
import { type Guest, type GuestWatch, openDestination, type Registry, watchGuest } from "@godwit/guest";
import { PAGE_BYTES, RamFileError } from "@godwit/memory";
import { DestinationReport, fromError, GodwitError, isMalformed, json, Switching, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Scope from "effect/Scope";
import { openReceiver, type Receiver } from "./applying.ts";
import {
  begin,
  type Destination,
  type DestinationEffect,
  type DestinationEvent,
  differences,
  type LocalStep,
  reportOf,
  step,
} from "./decisions/index.ts";
import { receive } from "./receiving.ts";

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

export interface SessionTools {
  readonly settings: Settings;
  readonly register: OwnershipRegister;
  readonly registry: Registry;
}

/** Starts the session; it works until the scope ends. */
export const startSession = Effect.fnUntraced(function* (
  destination: Destination,
  tools: SessionTools,
): Effect.fn.Return<Session, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const { settings, register, registry } = tools;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  const fork = (work: Effect.Effect<unknown>): void => void run(Effect.forkIn(work, scope));

  let guest: Guest | null = null;
  let watch: GuestWatch | null = null;
  let receiver: Receiver | null = null;

  const dispatch = makeEventLoop<DestinationEvent>((event) => {
    for (const effect of step(destination, event, Date.now())) perform(effect);
  });
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  const closeReceiver = (): void => {
    receiver?.close();
    receiver = null;
  };
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      alarm.stop();
      closeReceiver();
    }),
  );

  const perform = (effect: DestinationEffect): void => {
    switch (effect._tag) {
      case "Local":
        return fork(
          Effect.matchEager(explained(localWork(effect.step)), {
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
    registry.settle(destination.guest);
    const { failure } = destination;
    if (failure !== null)
      fork(Effect.logError(`the guest was handed over and is lost, no other one is started: ${failure.reason}`));
  };

  const show = (): void =>
    void fabric.publish(subjects.destinationReport(destination.migration), reports.encode(reportOf(destination)));

  const withGuest = <A>(use: (guest: Guest) => Effect.Effect<A, GodwitError>): Effect.Effect<A, GodwitError> =>
    Effect.suspend(() => (guest === null ? Effect.never : use(guest)));

  const localWork = (localStep: LocalStep): Effect.Effect<DestinationEvent, GodwitError> => {
    switch (localStep) {
      case "prepare":
        return prepare;
      case "load-device-state":
        return withGuest((opened) => {
          const path = receiver?.deviceStatePath ?? "";
          return Effect.as(opened.loadDeviceState(path), { _tag: "DeviceStateLoaded" } as const);
        });
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
        return Effect.suspend(() => {
          closeReceiver();
          return guest === null ? Effect.void : guest.discard;
        }).pipe(
          Effect.tap(() => forgetIfGone(registry, destination.guest)),
          Effect.as({ _tag: "Discarded" } as const),
        );
    }
  };

  const prepare: Effect.Effect<DestinationEvent, GodwitError> = Effect.gen(function* () {
    const { offer } = destination;
    const blocks = offer.blocks.map((block) => ({
      name: block.name,
      lengthBytes: block["length-bytes"],
      hostPageBytes: block["page-size"],
      path: "",
      fileOffset: 0,
    }));
    const opened = yield* openDestination(
      registry,
      { name: destination.guest, driver: offer.driver, blocks },
      settings.guestDirectory,
    );
    const description = yield* opened.guest.describe;
    const found = differences(offer, description);
    if (found.length > 0) {
      return yield* new GodwitError({
        code: "incompatible",
        actor: "loader",
        side: "destination",
        step: "compare both sides",
        reason: `source and destination of guest ${destination.guest} differ`,
        differences: found,
      });
    }
    const byName = new Map(description.blocks.map((block) => [block.name, block]));
    const path = join(settings.runtimeDirectory, "incoming", `${destination.migration}-${destination.epoch}`);
    receiver = yield* Effect.try({
      try: () =>
        openReceiver(
          offer.blocks.map((block) => byName.get(block.name)!),
          path,
        ),
      catch: asGodwitError("loader", "open the guest's memory"),
    });
    guest = opened.guest;
    const watching = yield* watchGuest(opened.guest, {
      guest: destination.guest,
      actor: "loader",
      side: "destination",
    });
    watch = watching;
    fork(Effect.map(watching.ended, (error) => dispatch({ _tag: "GuestEnded", failure: fromError(error) })));
    return { _tag: "Prepared" } as const;
  }).pipe(Effect.provideService(Scope.Scope, scope));

  /** Applies a batch; a full file system ends the attempt, with that reason. */
  const take = (messages: ReadonlyArray<Message>): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (receiver === null) return Effect.void;
      try {
        const { acknowledgements, complaint } = receive(destination, receiver, messages);
        for (const bytes of acknowledgements) fabric.publish(subjects.acknowledgement(destination.migration), bytes);
        dispatch({ _tag: "PacketsApplied" });
        return complaint === null ? Effect.void : Effect.logWarning(`a packet was dropped: ${complaint}`);
      } catch (error) {
        dispatch({ _tag: "LocalFailed", step: "apply", failure: fromError(writeFailure(error)) });
        return Effect.void;
      } finally {
        for (const { data } of messages) letGo(data);
      }
    });

  const packets = yield* Effect.orDie(
    fabric.subscribe(subjects.channels(destination.migration), { capacity: WAITING_PACKETS_MAX, plane: "bulk" }),
  );
  yield* Effect.forkScoped(Effect.forever(Effect.flatMap(packets.takeAll, take)));
  const told = yield* Effect.orDie(
    fabric.subscribe(subjects.switching(destination.migration), { capacity: WAITING_SWITCHING_MAX }),
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
  for (const effect of begin) perform(effect);
  return { destination, dispatch, show };
});

const writeFailure = (error: unknown): GodwitError => {
  const step = "apply pages";
  if (error instanceof RamFileError && error.errno === "ENOSPC") {
    return new GodwitError({ code: "no-space", actor: "loader", side: "destination", step, reason: error.message });
  }
  return asGodwitError("loader", step)(error);
};

/** A builtin destination that was discarded is a process that has ended; a QEMU keeps waiting under its name. */
const forgetIfGone = (registry: Registry, name: string): Effect.Effect<void> =>
  Effect.sync(() => {
    if (registry.find(name)?.driver === "builtin") registry.remove(name);
    else registry.settle(name);
  });
