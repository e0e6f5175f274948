/** Starts guests whose hand-over an earlier life of this loader had committed, and not yet carried out. */
import { type OwnershipRegister, randomId, type Settings } from "@godwit/actor";
import { type GuestSpec, openGuest, type Registry, type RunState } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { recover } from "./decisions/index.ts";

/** Between two looks at a record that cannot be reached or may be stale, ms; so many looks, then slowly. */
const LOOK_AGAIN_MS = 300;
const QUICK_LOOKS = 10;
/** A commit of the dead may land seconds after its author's successor has looked first, ms between two looks; half a minute in all. */
const LOOK_SLOWLY_MS = 2000;
const LOOKS_MAX = 25;

/** Ends when the guest runs, or is gone, or nothing can be on its way any more; never fails. */
export const recoverGuest = Effect.fnUntraced(function* (
  spec: GuestSpec,
  settings: Settings,
  register: OwnershipRegister,
  registry: Registry,
): Effect.fn.Return<void> {
  for (let look = 1; look <= LOOKS_MAX; look++) {
    const state = yield* stateOf(spec);
    if (state !== "incoming" && state !== "paused" && state !== "running") return;
    const entry = yield* register.read(spec.name);
    const recovery =
      entry === "Unknown" ? null : recover(entry, settings.node, `${settings.incarnation}-${randomId()}`);
    if (recovery?._tag === "Start" && (yield* start(spec, recovery.resume))) {
      registry.settle(spec.name);
      // The guest runs; whether the record says so is for the next reader's peace of mind.
      return void (yield* register.write(spec.name, recovery.closed, recovery.revision));
    }
    if (state === "running" && recovery !== null) return registry.settle(spec.name);
    yield* Effect.sleep(look < QUICK_LOOKS ? LOOK_AGAIN_MS : LOOK_SLOWLY_MS);
  }
});

/** Null: it cannot be reached. */
const stateOf = (spec: GuestSpec): Effect.Effect<RunState | null> =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.describe)).pipe(
    Effect.map(({ runState }) => runState as RunState | null),
    Effect.catch(() => Effect.succeed(null)),
  );

const start = (spec: GuestSpec, resume: boolean): Effect.Effect<boolean> =>
  Effect.scoped(
    Effect.gen(function* () {
      const guest = yield* openGuest(spec);
      const { runState } = yield* guest.describe;
      if (!resume || runState === "running") return true;
      yield* guest.resume;
      yield* Effect.logWarning(`guest ${spec.name} had been handed over and not started; it runs now`);
      return true;
    }),
  ).pipe(
    Effect.catch((error) =>
      Effect.as(Effect.logError(`guest ${spec.name} was handed over and does not start: ${error.message}`), false),
    ),
  );
