/** Watches a migration's first pass from outside: on NATS, where every work item and every acknowledgement comes by. */
import type { Fabric } from "@godwit/fabric";
import { ANY_ROUTE, decodeAcknowledgement, decodeWorkItem, PAGE_BYTES, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

export interface FirstPass {
  /** From the first work item to the last acknowledgement of round 1. */
  readonly seconds: number;
  /** Of pages that had a payload; zero pages do not count. */
  readonly bytes: number;
}

/** Messages that may wait; a pass has one work item for each 256 KiB. */
const WAITING_MAX = 65_536;

/** Watches from now on until the scope ends; the effect it returns reads what has been seen. Watch one migration at a time. */
export const watchFirstPass = Effect.fnUntraced(function* (
  fabric: Fabric["Service"],
): Effect.fn.Return<Effect.Effect<FirstPass>, unknown, Scope.Scope> {
  let startedMs = 0;
  let endedMs = 0;
  let pages = 0;
  const items = yield* fabric.subscribe(subjects.work("*", "*", "*"), { capacity: WAITING_MAX });
  const acknowledgements = yield* fabric.subscribe(subjects.acknowledgement(ANY_ROUTE), { capacity: WAITING_MAX });
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(items.takeAll, ([first]) => {
        if (startedMs !== 0 || first === undefined) return;
        const item = decodeWorkItem(first.data);
        if (item.kind !== "malformed" && item.round === 1) startedMs = performance.now();
      }),
    ),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(acknowledgements.takeAll, (messages) => {
        for (const { data } of messages) {
          const ack = decodeAcknowledgement(data);
          if (ack.kind !== "applied" || ack.round !== 1) continue;
          endedMs = performance.now();
          pages += ack.normalPages;
        }
      }),
    ),
  );
  return Effect.sync(() => ({ seconds: (endedMs - startedMs) / 1000, bytes: pages * PAGE_BYTES }));
});
