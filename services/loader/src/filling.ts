/** Fills a guest's memory from a checkpoint: multifd workers of this host copy the pages, each from its place to its place. */
import { makeAlarm, makeEventLoop, type Settings, watchWorkers } from "@godwit/actor";
import { type BlockSums, type Gate, openGate, type StoredBlock } from "@godwit/checkpoint";
import { Fabric } from "@godwit/fabric";
import { exportBlocks, exportCheckpoint, gateExport, type RamBlock, withdrawExports } from "@godwit/memory";
import {
  decodeFileAnswer,
  encodeFileItem,
  type Failure,
  GodwitError,
  type Parameters,
  subjects,
  toError,
} from "@godwit/protocol";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import { clearAbsent } from "./clearing.ts";
import { FILL_ROUND, type FillEffect, type FillEvent, makeFill, stepFill } from "./decisions/index.ts";
import type { Progress } from "./restoring.ts";

/** A worker that gets to an item later than this drops it, ms: by then it was handed out again. */
const ITEM_LIFE_MS = 30_000;
const WAITING_ANSWERS_MAX = 16_384;
/** Between two tries to shut the gate, ms; and how long a worker may stay within. */
const SHUT_AGAIN_MS = 2;
const SHUT_MS = 15_000;

interface Filling {
  readonly id: string;
  readonly settings: Settings;
  readonly checkpointPath: string;
  readonly parameters: Parameters;
  /** The guest's own, in its order. */
  readonly blocks: ReadonlyArray<RamBlock>;
  readonly stored: ReadonlyArray<StoredBlock>;
  /** What the pages of each block must sum up to; null: nobody knows. */
  readonly sums: ReadonlyArray<BlockSums> | null;
  readonly progress: Progress;
}

/** Returns once every page is in place, and no worker is at the memory any more. */
export const fillMemory = (filling: Filling): Effect.Effect<void, GodwitError, Fabric> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { id, settings, blocks, stored } = filling;
      const { runtimeDirectory } = settings;
      const places = blocks.map((block) => {
        const place = stored.find(({ name }) => name === block.name)!;
        const sums = filling.sums?.find(({ name }) => name === block.name)?.sums ?? null;
        return {
          name: block.name,
          pages: place.pages,
          present: place.present,
          sums,
          fileOffset: block.fileOffset,
          pagesOffset: place.pagesOffset,
        };
      });
      for (const [index, block] of blocks.entries()) yield* clearAbsent(block, places[index]!.present);
      yield* Effect.addFinalizer(() => Effect.sync(() => withdrawExports(runtimeDirectory, id, "fill")));
      const gate = yield* Effect.acquireRelease(
        Effect.try({
          try: () => {
            exportBlocks(runtimeDirectory, id, 1, blocks, "fill");
            exportCheckpoint(runtimeDirectory, id, "fill", filling.checkpointPath);
            return openGate(gateExport(runtimeDirectory, id, FILL_ROUND, "fill"));
          },
          catch: (cause) => failed("checkpoint-failed", cause instanceof Error ? cause.message : String(cause)),
        }),
        // Also of a fill that failed: a QEMU that waits may be filled anew at once, and a late copy would land in that.
        (open) => Effect.andThen(Effect.ignore(shut(open)), Effect.sync(open.abandon)),
      );
      yield* runFill(filling, places);
      // A copy that a worker makes late would overwrite what the guest has written since.
      yield* shut(gate);
    }),
  );

/** By tries and not by a time-out, which would not end in a finalizer. */
const shut = (gate: Gate): Effect.Effect<void, GodwitError> =>
  Effect.sync(gate.shut).pipe(
    Effect.repeat({
      until: (isShut) => isShut,
      schedule: Schedule.spaced(SHUT_AGAIN_MS),
      times: SHUT_MS / SHUT_AGAIN_MS,
    }),
    Effect.flatMap((isShut) =>
      isShut
        ? Effect.void
        : Effect.fail(
            failed("checkpoint-failed", `a multifd worker does not leave the guest's memory for ${SHUT_MS} ms`),
          ),
    ),
  );

const failed = (code: Failure["code"], reason: string): GodwitError =>
  new GodwitError({ code, actor: "loader", side: "destination", step: "read the checkpoint", reason });

interface FillPlace {
  readonly name: string;
  readonly pages: number;
  readonly present: StoredBlock["present"];
  readonly sums: Uint32Array | null;
  readonly fileOffset: number;
  readonly pagesOffset: number;
}

const runFill = Effect.fnUntraced(function* (
  { id, settings, parameters, progress }: Filling,
  places: ReadonlyArray<FillPlace>,
): Effect.fn.Return<void, GodwitError, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const done = yield* Deferred.make<void, GodwitError>();
  const fill = makeFill(places, parameters["multifd-channels"], Date.now());
  const whole = progress.remaining;
  const dispatch = makeEventLoop<FillEvent>((event) => {
    for (const effect of stepFill(fill, event, Date.now())) perform(effect);
    progress.transferred = fill.readBytes;
    progress.remaining = whole - fill.readBytes;
  });
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  yield* Effect.addFinalizer(() => Effect.sync(alarm.stop));

  const perform = (effect: FillEffect): void => {
    switch (effect._tag) {
      case "Dispatch":
        return handOut(effect);
      case "Done":
        return void Deferred.doneUnsafe(done, Effect.void);
      case "Failed":
        return void Deferred.doneUnsafe(done, Effect.fail(toError(effect.failure)));
      case "WakeAt":
        return alarm.wakeAt(effect.at);
    }
  };
  const handOut = ({ worker, item, channel, channelEpoch }: Extract<FillEffect, { _tag: "Dispatch" }>): void => {
    const { work } = item;
    if (work.kind !== "pages") return;
    const { fileOffset, pagesOffset, sums } = places[work.block]!;
    const request = encodeFileItem({
      kind: "fill",
      id,
      round: FILL_ROUND,
      item: item.item,
      channel,
      channelEpoch,
      deadline: Date.now() + ITEM_LIFE_MS,
      block: work.block,
      fileOffset,
      pagesOffset,
      runs: work.runs,
      direct: parameters["direct-io"] === "on",
      sums: sums !== null,
      holes: false,
    });
    fabric.publish(subjects.fileWork(settings.node, worker), request);
  };

  const answers = yield* Effect.orDie(
    fabric.subscribe(subjects.fileAnswer(settings.node, id), { capacity: WAITING_ANSWERS_MAX }),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(answers.takeAll, (messages) => {
        for (const { data } of messages) {
          const answer = decodeFileAnswer(data);
          if (answer.kind === "malformed" || answer.id !== id || answer.round !== FILL_ROUND) continue;
          if (answer.kind === "done") dispatch({ _tag: "Filled", item: answer.item, sums: answer.sums });
          else dispatch({ _tag: "Refused", item: answer.item, reason: answer.reason });
        }
      }),
    ),
  );
  yield* Effect.orDie(
    watchWorkers(settings.node, (news) => Effect.sync(() => news._tag !== "Denied" && dispatch(news))),
  );
  dispatch({ _tag: "Tick" });
  yield* Deferred.await(done);
});
