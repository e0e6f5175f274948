/** One migration of this host's sender: feeds its decisions with events and carries out what they want. */
import {
  asGodwitError,
  askRecord,
  hostMicros,
  makeAlarm,
  makeEventLoop,
  type OwnershipRegister,
  type Settings,
} from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import type { Registry } from "@godwit/guest";
import { type Epoch, fromError, json, type MigrationId, SourceReport, Switching, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { tellAgent } from "./agent-requests.ts";
import type { Agreements } from "./agreements.ts";
import { begin, reportOf, type Source, type SourceEffect, type SourceEvent, step } from "./decisions/index.ts";
import { workItem } from "./dispatch.ts";
import { makeGuestSteps } from "./guest-steps.ts";
import { listen } from "./listening.ts";

const sourceReport = json(SourceReport);
const switching = json(Switching);

export interface Session {
  readonly source: Source;
  readonly dispatch: (event: SourceEvent) => void;
  readonly show: () => void;
}

export interface SessionTools {
  readonly settings: Settings;
  readonly register: OwnershipRegister;
  readonly registry: Registry;
  readonly agreements: Agreements;
}

/** Starts the session; it works until the scope ends. */
export const startSession = Effect.fnUntraced(function* (
  source: Source,
  tools: SessionTools,
): Effect.fn.Return<Session, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const { register } = tools;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  /** Forks work that ends with the session. */
  const fork = (work: Effect.Effect<unknown>): void => void run(Effect.forkIn(work, scope));

  const dispatch = makeEventLoop<SourceEvent>((event) => {
    const wasOver = source.phase._tag === "Ended";
    for (const effect of step(source, event, Date.now(), hostMicros())) perform(effect);
    if (!wasOver && source.phase._tag === "Ended") tools.agreements.forget(source);
  });
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  yield* Effect.addFinalizer(() => Effect.sync(alarm.stop));
  const guest = yield* makeGuestSteps(source, tools, dispatch);

  const perform = (effect: SourceEffect): void => {
    switch (effect._tag) {
      case "Local":
        return fork(
          Effect.matchEager(guest.take(effect.step, effect.round), {
            onSuccess: dispatch,
            onFailure: (error) =>
              dispatch({ _tag: "LocalFailed", step: effect.step, failure: { ...fromError(error), side: "source" } }),
          }),
        );
      case "CloseTracker":
        return fork(guest.closeTracker);
      case "ReadRecord":
      case "WriteRecord":
        return fork(Effect.map(askRecord(register, source.guest, effect), dispatch));
      case "Dispatch":
        return handOut(effect);
      case "TellLoader":
        return tellLoader();
      case "TellAgent":
        return fork(Effect.provideService(tellAgent(source, effect.stage), Fabric, fabric));
      case "Report":
        return show();
      case "WakeAt":
        return alarm.wakeAt(effect.at);
    }
  };

  const show = (): void =>
    void fabric.publish(subjects.sourceReport(source.route), sourceReport.encode(reportOf(source, Date.now())));

  const tellLoader = (): void => {
    const word = { migration: source.migration as MigrationId, epoch: source.epoch as Epoch };
    fabric.publish(subjects.switching(source.route), switching.encode(word));
  };

  const handOut = (effect: Extract<SourceEffect, { _tag: "Dispatch" }>): void => {
    try {
      const item = workItem(source, effect, guest.blocks(), guest.readers(), Date.now());
      fabric.publish(subjects.work(source.node, effect.worker, source.route.destination), item);
    } catch (error) {
      const failure = fromError(asGodwitError("ram-sender", "look for zero pages")(error));
      dispatch({ _tag: "LocalFailed", step: "sync", failure: { ...failure, code: "guest-failed" } });
    }
  };

  yield* listen(source, dispatch);
  for (const effect of begin) perform(effect);
  return { source, dispatch, show };
});
