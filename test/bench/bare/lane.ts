/** The yardstick of the lane: messages of a packet's size from process to process through NATS, and nothing done with them. */
import type { Fabric } from "@godwit/fabric";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { ClientName } from "./client.ts";
import { startBare as start } from "./process.ts";
import { acknowledgementOf, goOf } from "./subjects.ts";

export interface BareLane {
  /** Sends everything once: seconds from the start signal to the last acknowledgement. */
  readonly run: Effect.Effect<number, unknown>;
  readonly subscriberPid: number;
  readonly publisherPids: ReadonlyArray<number>;
}

export interface BareLaneOptions {
  readonly client: ClientName;
  readonly url: string;
  readonly fabric: Fabric["Service"];
  readonly publishers: number;
  readonly messageBytes: number;
  /** Of each publisher. */
  readonly messages: number;
  /** Messages of one publisher that may be unacknowledged. */
  readonly window: number;
}

const WAITING_MAX = 65_536;
const NOTHING = new Uint8Array(0);

/** Starts the processes; they end with the scope. */
export const openBareLane = Effect.fnUntraced(function* (
  options: BareLaneOptions,
): Effect.fn.Return<BareLane, unknown, Scope.Scope> {
  const { client, url, fabric, publishers, messageBytes, messages, window } = options;
  const subscriberPid = yield* start("./subscriber.ts", [client, url]);
  const publisherPids = yield* Effect.forEach(
    Array.from({ length: publishers }, (_, number) => String(number)),
    (number) => start("./publisher.ts", [client, url, number, ...[messageBytes, messages, window].map(String)]),
    { concurrency: "unbounded" },
  );
  const run = Effect.scoped(
    Effect.gen(function* () {
      const acknowledgements = yield* fabric.subscribe(acknowledgementOf(client, "*"), { capacity: WAITING_MAX });
      const startedMs = performance.now();
      fabric.publish(goOf(client), NOTHING);
      for (let missing = messages * publishers; missing > 0; ) {
        for (const { data } of yield* acknowledgements.takeAll)
          missing -= new DataView(data.buffer, data.byteOffset).getUint32(0);
      }
      return (performance.now() - startedMs) / 1000;
    }),
  );
  return { run, subscriberPid, publisherPids };
});
