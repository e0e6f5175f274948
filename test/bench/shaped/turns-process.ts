// `fork`ed at the near end of the link with the options of `measureTurns` in JSON. Says what goes on, and at the end the result or why there is none.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime";
import * as Effect from "effect/Effect";
import * as References from "effect/References";
import { measureTurns, type Turn, type TurnsOptions } from "./turns.ts";

export type TurnsNews =
  | { readonly progress: string }
  | { readonly measured: ReadonlyArray<Turn> }
  | { readonly failed: string };

const tell = (news: TurnsNews): void => void process.send?.(news);
const options = JSON.parse(process.argv[2] ?? "null") as Omit<TurnsOptions, "progress">;
process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));

const measure = measureTurns({ ...options, progress: (progress) => tell({ progress }) }).pipe(
  Effect.scoped,
  Effect.match({
    onSuccess: (measured) => tell({ measured }),
    onFailure: (error) => tell({ failed: error instanceof Error ? error.message : String(error) }),
  }),
  // The channel to the parent would keep this process.
  Effect.andThen(Effect.sync(() => process.disconnect?.())),
  Effect.provideService(References.MinimumLogLevel, "Error"),
);
NodeRuntime.runMain(measure as Effect.Effect<void>);
