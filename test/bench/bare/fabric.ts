/** godwit's own lane, with nothing done to the messages: what its client leaves of the server's rate. */
import { Fabric, letGo, NatsFabric } from "@godwit/fabric";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Scope from "effect/Scope";
import type { BareClient, Hear } from "./client.ts";

/** Messages that may wait for their turn: every publisher's window. */
const WAITING_MAX = 65_536;

/** Lives as long as its process. */
export const connectFabric = async (url: string, hear: Hear): Promise<BareClient> => {
  const scope = await Effect.runPromise(Scope.make());
  const context = await Effect.runPromise(
    Layer.buildWithScope(NatsFabric.layer({ servers: url, name: "bare" }), scope),
  );
  const run = Effect.runForkWith(context);
  const fabric = await Effect.runPromise(Effect.provide(Fabric, context));
  const received = Effect.fnUntraced(function* (subject: string) {
    const subscription = yield* fabric.subscribe(subject, { capacity: WAITING_MAX, plane: "bulk" });
    return yield* Effect.forever(
      Effect.map(subscription.takeAll, (messages) => {
        for (const message of messages) {
          hear(message.subject, message.data);
          letGo(message.data);
        }
      }),
    );
  });
  return {
    subscribe: (subject) => void run(Effect.provideService(received(subject), Scope.Scope, scope)),
    publish: (subject, payload) => void fabric.publishInPlace(subject, payload, "bulk", () => undefined),
    flush: () => Effect.runPromise(fabric.roundTrip("bulk")),
  };
};
