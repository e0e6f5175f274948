/** Settles what an earlier life of this sender left behind, guest by guest, before anything new is begun (O7). */
import { type OwnershipRegister, randomId, type Settings } from "@godwit/actor";
import { type GuestSpec, openGuest, type Registry } from "@godwit/guest";
import type { OwnershipEntry } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { recover } from "./decisions/index.ts";

/** Between two looks at a record that cannot be reached or may be stale, ms. */
const LOOK_AGAIN_MS = 300;
/** A paused guest whose record says "nothing to do" is looked at again so often: a read may be stale (a deposed leader answers for some seconds at most). */
const LOOKS = 10;

const isPaused = (spec: GuestSpec): Effect.Effect<boolean> =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.describe)).pipe(
    Effect.map((description) => description.runState === "paused"),
    Effect.catch(() => Effect.succeed(false)),
  );

/** Ends when the guest's record is settled; never fails. */
export const recoverGuest = Effect.fnUntraced(function* (
  spec: GuestSpec,
  settings: Settings,
  register: OwnershipRegister,
  registry: Registry,
): Effect.fn.Return<void> {
  for (let look = 1; look <= LOOKS; look++) {
    const entry = yield* known(register, spec.name);
    const recovery = recover(entry, settings.node, `${settings.incarnation}-${randomId()}`);
    if (recovery._tag === "Nothing") {
      if (!(yield* isPaused(spec))) return;
      yield* Effect.sleep(LOOK_AGAIN_MS);
      continue;
    }
    // What does not stand still here is no leftover of a hand-over.
    if (recovery._tag === "Discard" && !(yield* isPaused(spec))) return;
    const outcome = yield* register.write(spec.name, recovery.record, recovery.revision);
    if (typeof outcome === "object" || (yield* isOurs(register, spec.name, recovery.record.op))) {
      if (recovery._tag === "Discard") return yield* discard(spec, recovery.record.node, registry);
      if (!recovery.resume || !(yield* isPaused(spec))) return;
      yield* Effect.logWarning(
        `an earlier life of this sender left guest ${spec.name} stopped; it was taken back and goes on here`,
      );
      return yield* Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.resume)).pipe(
        Effect.catch((error) => Effect.logError(`guest ${spec.name} does not go on: ${error.message}`)),
      );
    }
    // Unknown, or somebody was faster: nothing is settled, look again from the start (O5).
    look = 0;
    yield* Effect.sleep(LOOK_AGAIN_MS);
  }
});

const discard = (spec: GuestSpec, node: string, registry: Registry): Effect.Effect<void> =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.discard)).pipe(
    Effect.tap(() => Effect.sync(() => registry.remove(spec.name))),
    Effect.andThen(
      Effect.logWarning(`guest ${spec.name} was handed over to node ${node}; the copy that was left here is gone`),
    ),
    Effect.catch((error) => Effect.logError(`the old copy of guest ${spec.name} does not go: ${error.message}`)),
  );

const known = (register: OwnershipRegister, guest: string): Effect.Effect<OwnershipEntry | null> =>
  register
    .read(guest)
    .pipe(
      Effect.flatMap((entry) =>
        entry === "Unknown" ? Effect.delay(known(register, guest), LOOK_AGAIN_MS) : Effect.succeed(entry),
      ),
    );

const isOurs = (register: OwnershipRegister, guest: string, op: string): Effect.Effect<boolean> =>
  Effect.map(register.read(guest), (entry) => entry !== null && entry !== "Unknown" && entry.record.op === op);
