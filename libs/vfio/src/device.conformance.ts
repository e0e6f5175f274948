/**
 * The contract of `VfioDevice`, for all providers. `conformance/facts.ts` says what a factory may declare to be different;
 * `conformanceCases` gives the same cases to whoever has no vitest.
 */
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { describe, it } from "vitest";
import { conformanceCases } from "./conformance/cases.ts";
import type { DeviceFacts, DevicePair } from "./conformance/facts.ts";

/** `makePair` is run for each case, in a scope of its own. */
export function deviceConformance(
  name: string,
  facts: DeviceFacts,
  makePair: Effect.Effect<DevicePair, unknown, Scope.Scope>,
): void {
  describe(`VfioDevice: ${name}`, () => {
    for (const { name: title, run } of conformanceCases(facts)) {
      it(title, () => Effect.runPromise(Effect.scoped(Effect.flatMap(makePair, run))));
    }
  });
}
