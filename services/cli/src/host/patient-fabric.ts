/** A fabric for what runs until it is stopped: NATS may come later, so that the order in which things start does not matter. */
import { Fabric } from "@godwit/fabric";
import type { GodwitError } from "@godwit/protocol";
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import { fabricLayer, fromFabric, type NatsValues } from "../connection.ts";

/** Between two tries, ms. */
const AGAIN = Schedule.spaced("1 second");

const patiently = <A, R>(work: Effect.Effect<A, GodwitError, R>): Effect.Effect<A, GodwitError, R> =>
  work.pipe(
    Effect.tapError((error) => Effect.logWarning(error.reason).pipe(Effect.annotateLogs({ step: error.step }))),
    Effect.retry({
      schedule: AGAIN,
      while: ({ code }) => code === "nats-unreachable" || code === "js-domain-unreachable",
    }),
  );

/**
 * Fails for what waiting does not mend: credentials, a server that is too old, and a bucket that is not there or unsafe. The actors
 * open the same buckets; here it is found out before they are started, and told to whoever started us.
 */
export const patientFabric = (
  values: NatsValues,
  name: string,
  role: string,
  buckets: ReadonlyArray<string>,
): Effect.Effect<Context.Context<Fabric>, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* patiently(Layer.build(fabricLayer(values, name, role)));
    const fabric = Context.get(context, Fabric);
    for (const bucket of buckets) yield* patiently(Effect.mapError(fabric.bucket(bucket), fromFabric));
    return context;
  });
