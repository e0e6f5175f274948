/** The yardstick of a page fault: a request and its answer of a page, from process to process through NATS with nats.js. */
import { connect } from "@nats-io/transport-node";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { startBare } from "./process.ts";
import { PAGE_REQUEST } from "./subjects.ts";

const NOTHING = new Uint8Array(0);
const TIMEOUT_MS = 5000;

/** So many round trips, one after the other, ms each; some before them warm everybody up. */
export const roundTrips = Effect.fnUntraced(function* (
  url: string,
  count: number,
): Effect.fn.Return<ReadonlyArray<number>, unknown, Scope.Scope> {
  yield* startBare("./responder.ts", [url]);
  const nc = yield* Effect.acquireRelease(
    Effect.promise(() => connect({ servers: url, noAsyncTraces: true })),
    (connection) => Effect.promise(() => connection.close()),
  );
  return yield* Effect.promise(async () => {
    const times: number[] = [];
    for (let n = -count / 4; n < count; n++) {
      const begun = performance.now();
      await nc.request(PAGE_REQUEST, NOTHING, { timeout: TIMEOUT_MS });
      if (n >= 0) times.push(performance.now() - begun);
    }
    return times;
  });
});
