/** Watches the state of VFIO devices move, from outside: on NATS, where every work item and every acknowledgement comes by. */
import type { Fabric } from "@godwit/fabric";
import { ANY_ROUTE, decodeAcknowledgement, decodeWorkItem, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

export interface DeviceBytes {
  /** From the first work item to the last acknowledgement. */
  readonly seconds: number;
  /** Of all streams, each byte once. */
  readonly bytes: number;
  /** Work items that were handed out once more. */
  readonly sentAgain: number;
}

/** Messages that may wait; a gigabyte has a work item for each 256 KiB. */
const WAITING_MAX = 65_536;

/** Watches from now on until the scope ends; the effect it returns reads what has been seen. Watch one migration at a time. */
export const watchDeviceBytes = Effect.fnUntraced(function* (
  fabric: Fabric["Service"],
): Effect.fn.Return<Effect.Effect<DeviceBytes>, unknown, Scope.Scope> {
  let startedMs = 0;
  let endedMs = 0;
  let sentAgain = 0;
  const bytesOf = new Map<number, number>();
  const items = yield* fabric.subscribe(subjects.work("*", "*", "*"), { capacity: WAITING_MAX });
  const acknowledgements = yield* fabric.subscribe(subjects.deviceAcknowledgement(ANY_ROUTE), {
    capacity: WAITING_MAX,
  });
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(items.takeAll, (messages) => {
        for (const { data } of messages) {
          const item = decodeWorkItem(data);
          if (item.kind !== "slice" || item.stream === 0) continue;
          if (startedMs === 0) startedMs = performance.now();
          if (bytesOf.has(item.item)) sentAgain++;
          bytesOf.set(item.item, item.bytes);
        }
      }),
    ),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(acknowledgements.takeAll, (messages) => {
        for (const { data } of messages)
          if (decodeAcknowledgement(data).kind === "applied") endedMs = performance.now();
      }),
    ),
  );
  return Effect.sync(() => ({
    seconds: (endedMs - startedMs) / 1000,
    sentAgain,
    bytes: [...bytesOf.values()].reduce((sum, bytes) => sum + bytes, 0),
  }));
});
