import * as Effect from "effect/Effect";
import { FabricError } from "./errors.ts";
import type { Bucket, CasOutcome } from "./fabric.ts";
import type { SimEntry, SimRead, SimRegister } from "./simulation/index.ts";

/**
 * A simulated register as `actor` sees it. Values are copied both ways, as a network does it. `whileAlive` keeps what a dead
 * actor asks from being heard.
 */
export function simBucket(
  register: SimRegister,
  actor: string,
  whileAlive: <A, E>(ask: Effect.Effect<A, E>) => Effect.Effect<A, E>,
): Bucket {
  return {
    get: (key) =>
      read<SimEntry | null>(`read ${key}`, (settled) => register.get(actor, key, settled)).pipe(
        Effect.map((entry) =>
          entry === null ? null : { value: (entry.value as Uint8Array).slice(), revision: entry.revision },
        ),
        whileAlive,
      ),
    keys: read<ReadonlyArray<string>>("list the keys", (settled) => register.keys(actor, settled)).pipe(whileAlive),
    compareAndSet: (key, value, revision) =>
      Effect.callback<CasOutcome>((resume) => {
        register.compareAndSet(actor, key, value.slice(), revision, (outcome) => resume(Effect.succeed(outcome)));
      }).pipe(whileAlive),
  };
}

const read = <A>(
  operation: string,
  ask: (settled: (answer: SimRead<A>) => void) => void,
): Effect.Effect<A, FabricError> =>
  Effect.callback((resume) => {
    ask((answer) => {
      if (answer._tag === "Read") resume(Effect.succeed(answer.found));
      else resume(Effect.fail(new FabricError({ code: "failed", operation, reason: answer.reason, retryable: true })));
    });
  });
