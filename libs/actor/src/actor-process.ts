import { constants } from "node:os";
import { inspect } from "node:util";
import * as NodeRuntime from "@effect/platform-node/NodeRuntime";
import { type Fabric, NatsFabric } from "@godwit/fabric";
import { errnoOf, signalOnParentDeath } from "@godwit/host";
import { GodwitError } from "@godwit/protocol";
import * as Telemetry from "@godwit/telemetry";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import { natsOptionsOf, readSettings, type Settings } from "./settings.ts";

/** The version that services show; the workspace's own. */
export const GODWIT_VERSION = "0.1.0";

/** A first connection that fails is tried again, so often: a way to NATS that is cut now is whole again some time. */
const CONNECT_AGAIN = Schedule.spaced("500 millis");

/** What an actor runs: it is present on the fabric from `ready` on, until its scope ends. */
export type ActorProgram = (settings: Settings) => Effect.Effect<never, unknown, Fabric | Scope.Scope>;

/**
 * An actor, from its settings to its end: logs, a fabric on NATS, and its program. Until NATS can be reached it keeps trying, so that
 * the order in which things start does not matter.
 */
export const actorOf = (
  settings: Settings,
  role: string,
  id: string,
  program: ActorProgram,
): Effect.Effect<never, unknown> => {
  const fabric = NatsFabric.layer(natsOptionsOf(settings, role, `godwit ${role} ${settings.node} ${id}`));
  const patient = Layer.build(fabric).pipe(
    Effect.tapError(({ message, retryable }) => (retryable ? Effect.logWarning(message) : Effect.void)),
    Effect.retry({ schedule: CONNECT_AGAIN, while: ({ retryable }) => retryable }),
  );
  return Effect.scoped(program(settings)).pipe(
    Effect.provide(Layer.effectContext(patient)),
    Effect.annotateLogs({ incarnation: settings.incarnation }),
    Effect.tapCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.logError("the actor ended", cause),
    ),
    Effect.provide(Telemetry.layer({ actor: role, node: settings.node })),
  );
};

/** The main of an actor's process under a supervisor: settings from the environment; ends orderly on SIGINT and SIGTERM. */
export const runActor = (role: string, id: string, program: ActorProgram): void => {
  const supervisor = Number(process.env["GODWIT_SUPERVISOR"] ?? 0);
  // A supervisor that was killed can stop nobody: its actors go with it, and its successor starts others.
  if (supervisor > 0 && !signalOnParentDeath(constants.signals.SIGTERM, supervisor)) return;
  const main = Effect.flatMap(readSettings(role, process.env), (settings) => actorOf(settings, role, id, program));
  NodeRuntime.runMain(main as Effect.Effect<void, unknown>, { disableErrorReporting: true });
};

/** Turns any failure of an actor's own machinery into one that can be reported; that a file system is full is for its operator to mend. */
export const asGodwitError =
  (actor: string, step: string) =>
  (cause: unknown): GodwitError =>
    cause instanceof GodwitError
      ? cause
      : new GodwitError({
          code: errnoOf(cause) === "ENOSPC" ? "no-space" : "internal",
          actor,
          step,
          // `String` throws for an object without a prototype, which a failure may hold as well.
          reason: cause instanceof Error ? cause.message : typeof cause === "string" ? cause : inspect(cause),
        });

/** A step that somebody waits for: what it throws is its failure, and answered like any other. One that is interrupted answers nobody. */
export const answering =
  (actor: string, step: string) =>
  <A>(work: Effect.Effect<A, GodwitError>): Effect.Effect<A, GodwitError> =>
    Effect.catchDefect(work, (defect) =>
      Effect.andThen(
        Effect.logError(`${step} broke`, Cause.die(defect)),
        Effect.fail(asGodwitError(actor, step)(defect)),
      ),
    );
