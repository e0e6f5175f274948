/** One migration on a cluster of our own, shown while it runs. */
import type { Fabric } from "@godwit/fabric";
import {
  type GodwitError,
  type MigrationInfo,
  type Parameters,
  proposeCapabilities,
  proposeParameters,
  toError,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import { follow, migrate } from "../client.ts";
import type { Report } from "../reporting/report.ts";

export interface Journey {
  readonly guest: string;
  readonly destination: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly capabilities: Readonly<Record<string, boolean>>;
}

/** The parameters that will hold. Fails as the coordinator would, before anything is started for it. */
export const checkSettings = (
  asked: Pick<Journey, "parameters" | "capabilities">,
): Effect.Effect<Parameters, GodwitError> =>
  Effect.suspend(() => {
    const capabilities = proposeCapabilities(asked.capabilities);
    if ("code" in capabilities) return Effect.fail(toError(capabilities));
    const parameters = proposeParameters(asked.parameters);
    return "code" in parameters ? Effect.fail(toError(parameters)) : Effect.succeed(parameters);
  });

/** Everybody is there; the coordinator may hear of it a moment after us. */
const HEARS_SOON = { schedule: Schedule.spaced("50 millis"), times: 100 };
const UNHEARD: ReadonlySet<string> = new Set(["no-such-node", "no-such-guest"]);

/** Follows it to its end, however it ends; `seen` gets every state that comes by. */
export const travel = (
  journey: Journey,
  report: Report,
  seen: (info: MigrationInfo) => void = () => {},
): Effect.Effect<MigrationInfo, GodwitError, Fabric> =>
  Effect.gen(function* () {
    const begun = yield* Effect.retry(migrate(journey), { ...HEARS_SOON, while: ({ code }) => UNHEARD.has(code) });
    return yield* follow(begun.migration, (info) => {
      report.progress(info);
      seen(info);
    });
  });
