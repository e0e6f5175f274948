/** What became of a guest, for an actor that starts and finds it in its registry. */
import * as Effect from "effect/Effect";
import type { GuestSpec, RunState } from "./guest.ts";
import { openGuest } from "./opening.ts";

/** A guest that does not answer may just have ended; its end shows within this, ms. */
const GONE_WITHIN_MS = 1000;

/** `gone`: its process has ended. Null: it cannot be reached at the moment, and may be there all the same. */
export type GuestLook = RunState | "gone" | null;

export const lookAt = (spec: GuestSpec): Effect.Effect<GuestLook> =>
  Effect.scoped(
    Effect.flatMap(openGuest(spec), (guest) =>
      Effect.catch(
        Effect.map(guest.describe, ({ runState }): GuestLook => runState),
        () =>
          Effect.map(Effect.timeoutOption(guest.ending, GONE_WITHIN_MS), (ended) =>
            ended._tag === "Some" ? "gone" : null,
          ),
      ),
    ),
  ).pipe(Effect.catch(() => Effect.succeed(null)));
