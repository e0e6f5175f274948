/** One save of this host's sender: feeds its decisions with events and carries out what they want. */
import { makeAlarm, makeEventLoop, type Settings } from "@godwit/actor";
import type { HostPlace } from "@godwit/checkpoint";
import { Fabric } from "@godwit/fabric";
import type { Registry } from "@godwit/guest";
import { decodeFileAnswer, encodeFileItem, fromError, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { beginSave, type Save, type SaveEffect, type SaveEvent, stepSave } from "./decisions/index.ts";
import { makeSaveSteps } from "./save-steps.ts";

/** A worker that gets to an item later than this drops it, ms: by then it was handed out again. */
const ITEM_LIFE_MS = 30_000;
/** Answers that may wait: one for each item that windows allow in flight, many times over. */
const WAITING_ANSWERS_MAX = 16_384;

export interface SaveSession {
  readonly save: Save;
  readonly dispatch: (event: SaveEvent) => void;
}

/** Starts the session; it works until the scope ends. */
export const startSave = Effect.fnUntraced(function* (
  save: Save,
  place: HostPlace,
  tools: { readonly settings: Settings; readonly registry: Registry },
  /** Told once it has ended; the scope may be closed then. */
  ended: () => void,
): Effect.fn.Return<SaveSession, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  const fork = (work: Effect.Effect<unknown>): void => void run(Effect.forkIn(work, scope));
  const dispatch = makeEventLoop<SaveEvent>((event) => {
    const wasOver = save.phase._tag === "Ended";
    for (const effect of stepSave(save, event, Date.now())) perform(effect);
    if (!wasOver && save.phase._tag === "Ended") ended();
  });
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  yield* Effect.addFinalizer(() => Effect.sync(alarm.stop));
  const steps = yield* makeSaveSteps(save, place, tools, dispatch);

  const perform = (effect: SaveEffect): void => {
    switch (effect._tag) {
      case "Local":
        return fork(
          Effect.matchEager(steps.take(effect.step, effect.round), {
            onSuccess: dispatch,
            onFailure: (error) =>
              dispatch({ _tag: "LocalFailed", step: effect.step, failure: { ...fromError(error), side: "source" } }),
          }),
        );
      case "Abandon":
        return fork(steps.abandon);
      case "CloseTracker":
        return fork(steps.closeTracker);
      case "Dispatch":
        return handOut(effect);
      case "WakeAt":
        return alarm.wakeAt(effect.at);
    }
  };

  const handOut = ({ worker, item, channel, channelEpoch }: Extract<SaveEffect, { _tag: "Dispatch" }>): void => {
    const { work } = item;
    if (work.kind !== "pages") return;
    const place = steps.places()[work.block];
    if (place === undefined) return;
    const { round } = save.ledger;
    const request = encodeFileItem({
      kind: "store",
      id: save.id,
      round,
      item: item.item,
      channel,
      channelEpoch,
      deadline: Date.now() + ITEM_LIFE_MS,
      block: work.block,
      ...place,
      runs: work.runs,
      direct: save.parameters["direct-io"] === "on",
      sums: save.checksums,
      holes: round > 1,
    });
    fabric.publish(subjects.fileWork(save.node, worker), request);
  };

  const answers = yield* Effect.orDie(
    fabric.subscribe(subjects.fileAnswer(save.node, save.id), { capacity: WAITING_ANSWERS_MAX }),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(answers.takeAll, (messages) => {
        for (const { data } of messages) {
          const answer = decodeFileAnswer(data);
          if (answer.kind === "malformed" || answer.id !== save.id) continue;
          if (answer.kind === "done") dispatch({ ...answer, _tag: "Stored" });
          else dispatch({ ...answer, _tag: "Refused" });
        }
      }),
    ),
  );
  for (const effect of beginSave) perform(effect);
  return { save, dispatch };
});
