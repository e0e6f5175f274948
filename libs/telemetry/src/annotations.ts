import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";

type Annotate = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>;

/** Marks every line logged inside an effect with the migration it belongs to. */
export const withMigration = (migration: string): Annotate => Effect.annotateLogs("migration", migration);

/** Marks every line logged inside an effect with the guest it is about. */
export const withGuest = (guest: string): Annotate => Effect.annotateLogs("guest", guest);

/** Marks every line logged inside an effect with the multifd channel it is about. */
export const withChannel = (channel: number): Annotate => Effect.annotateLogs("channel", channel);

/** Marks every line logged inside an effect with the attempt's epoch. */
export const withEpoch = (epoch: number): Annotate => Effect.annotateLogs("epoch", epoch);

/**
 * Logs how an actor's whole program failed; an interruption (SIGTERM, SIGINT) is no failure. For the program given to
 * `NodeRuntime.runMain` together with `disableErrorReporting: true`: what runMain reports bypasses the log.
 */
export const logFailure = <A, E, R>(program: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.tapCause(program, (cause) =>
    Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.logFatal("the actor failed", cause),
  );
