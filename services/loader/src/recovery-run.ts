/** Starts guests whose hand-over an earlier life of this loader had committed, and not yet carried out. */
import { type OwnershipRegister, randomId, type Settings } from "@godwit/actor";
import { type GuestSpec, openGuest } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { recover } from "./decisions/index.ts";

/** Between two looks at a record that cannot be reached or may be stale, ms, and how many there are. */
const LOOK_AGAIN_MS = 300;
const LOOKS = 10;

/** Ends when nothing is left to do; never fails. */
export const recoverGuest = Effect.fnUntraced(function* (
  spec: GuestSpec,
  settings: Settings,
  register: OwnershipRegister,
): Effect.fn.Return<void> {
  for (let look = 1; look <= LOOKS; look++) {
    const entry = yield* register.read(spec.name);
    const recovery =
      entry === "Unknown" ? null : recover(entry, settings.node, `${settings.incarnation}-${randomId()}`);
    if (recovery?._tag === "Start") {
      const started = yield* start(spec, recovery.resume);
      // The guest runs; whether the record says so is for the next reader's peace of mind.
      if (started) return void (yield* register.write(spec.name, recovery.closed, recovery.revision));
    }
    yield* Effect.sleep(LOOK_AGAIN_MS);
  }
});

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
