/** Settles what an earlier life of this sender left behind, guest by guest, before anything new is begun (O7). */
import { type OwnershipRegister, randomId, type Settings } from "@godwit/actor";
import { type Guest, type GuestSpec, lookAt, openGuest, type Registry } from "@godwit/guest";
import type { OwnershipEntry } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import { recover, settled } from "./decisions/index.ts";

/** Between two looks at a record that cannot be reached or may be stale, ms. */
const LOOK_AGAIN_MS = 300;
/** A paused guest whose record says "nothing to do" is looked at again so often: a read may be stale (a deposed leader answers for some seconds at most). */
const LOOKS = 10;
/** A guest that does not go on is asked again, for a minute. */
const RESUME_AGAIN = { schedule: Schedule.spaced("500 millis"), times: 120 };

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
    const state = yield* lookAt(spec);
    // One that cannot be reached at the moment may stand still, too.
    const mayStandStill = state === "paused" || state === null;
    // What does not stand still for its switchover is no leftover of a hand-over.
    if (recovery._tag !== "TakeBack" && (!mayStandStill || (recovery._tag === "Discard" && spec.moving !== "leaving")))
      return;
    if (recovery._tag === "Nothing" || (recovery._tag === "Discard" && state === null)) {
      yield* Effect.sleep(LOOK_AGAIN_MS);
      continue;
    }
    const outcome = yield* register.write(spec.name, recovery.record, recovery.revision);
    const revision =
      typeof outcome === "object" ? outcome.revision : yield* ownRevision(register, spec.name, recovery.record.op);
    if (revision !== null) {
      if (recovery._tag === "Discard") return yield* discard(spec, recovery.record.node, registry);
      if (recovery.resume && mayStandStill) yield* goOn(spec, registry);
      // Not written: the next life finds it open, and finds nothing to do.
      return void (yield* register.write(
        spec.name,
        settled(recovery.record, `${settings.incarnation}-${randomId()}`),
        revision,
      ));
    }
    // Unknown, or somebody was faster: nothing is settled, look again from the start (O5).
    look = 0;
    yield* Effect.sleep(LOOK_AGAIN_MS);
  }
});

const goOn = (spec: GuestSpec, registry: Registry): Effect.Effect<void> =>
  Effect.scoped(
    Effect.flatMap(openGuest(spec), (guest) => Effect.raceFirst(resume(spec, guest, registry), isOver(spec, guest))),
  ).pipe(Effect.ignore);

const isOver = (spec: GuestSpec, guest: Guest): Effect.Effect<void> =>
  Effect.flatMap(guest.ending, ({ reason }) =>
    Effect.logWarning(`guest ${spec.name}, which an earlier life of this sender left stopped, has ended: ${reason}`),
  );

const resume = (spec: GuestSpec, guest: Guest, registry: Registry): Effect.Effect<void> =>
  guest.resume.pipe(
    Effect.tap(() => Effect.sync(() => registry.settle(spec.name))),
    Effect.andThen(
      Effect.logWarning(
        `an earlier life of this sender left guest ${spec.name} stopped; it was taken back and goes on here`,
      ),
    ),
    Effect.tapError((error) => Effect.logError(`guest ${spec.name} does not go on: ${error.message}`)),
    Effect.retry(RESUME_AGAIN),
    Effect.ignore,
  );

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

/** The revision of our own write whose answer was lost, or null when the register shows another's. */
const ownRevision = (register: OwnershipRegister, guest: string, op: string): Effect.Effect<number | null> =>
  Effect.map(register.read(guest), (entry) =>
    entry !== null && entry !== "Unknown" && entry.record.op === op ? entry.revision : null,
  );
