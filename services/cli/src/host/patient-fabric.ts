/** A fabric for what runs until it is stopped: NATS may come later, so that the order in which things start does not matter. */
import type { Fabric } from "@godwit/fabric";
import type { GodwitError } from "@godwit/protocol";
import type * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import { fabricLayer, type NatsValues } from "../connection.ts";

/** Between two tries, ms. */
const AGAIN = Schedule.spaced("1 second");

/** Fails for what waiting does not mend: credentials, or a server that is too old. */
export const patientFabric = (
  values: NatsValues,
  name: string,
): Effect.Effect<Context.Context<Fabric>, GodwitError, Scope.Scope> =>
  Layer.build(fabricLayer(values, name)).pipe(
    Effect.tapError((error) => Effect.logWarning(error.reason).pipe(Effect.annotateLogs({ step: error.step }))),
    Effect.retry({ schedule: AGAIN, while: ({ code }) => code === "nats-unreachable" }),
  );
