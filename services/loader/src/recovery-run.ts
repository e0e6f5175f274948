/** Settles what an earlier life of this loader left behind: starts guests whose hand-over it had committed, ends those that never came. */
import { type OwnershipRegister, randomId, type Settings } from "@godwit/actor";
import { type GuestLook, type GuestSpec, lookAt, openGuest, type Registry } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { isIdle, type Loader, type Recovery, recover } from "./decisions/index.ts";

/** Between two looks at a record that cannot be reached or may be stale, ms; so many looks, then slowly. */
const LOOK_AGAIN_MS = 300;
const QUICK_LOOKS = 10;
/** A commit of the dead may land seconds after its author's successor has looked first, ms between two looks; half a minute in all. */
const LOOK_SLOWLY_MS = 2000;
const LOOKS_MAX = 25;

/** Ends when the guest runs, or is gone, or nothing can be on its way any more; never fails. */
export const recoverGuest = Effect.fnUntraced(function* (
  known: GuestSpec,
  settings: Settings,
  register: OwnershipRegister,
  registry: Registry,
  loader: Loader,
): Effect.fn.Return<void> {
  let spec = known;
  // While the record cannot be read nothing is known, and nothing is given up.
  for (let looks = 0; looks < LOOKS_MAX; ) {
    // A session that goes on, or a new one, has the guest in hand; should it fail, the guest may still be one to start.
    if (!isIdle(loader, spec.name)) {
      yield* Effect.sleep(LOOK_SLOWLY_MS);
      const left = registry.find(spec.name);
      if (left === null) return;
      spec = left;
      continue;
    }
    const state = yield* lookAt(spec);
    const entry = yield* register.read(spec.name);
    const op = `${settings.incarnation}-${randomId()}`;
    const paging = !isOver(state) && (yield* isPaging(spec));
    const found = {
      arriving: spec.moving === "arriving",
      epoch: spec.epoch ?? 0,
      running: state === "running",
      pagesMissing: paging,
    };
    const recovery = entry === "Unknown" ? null : recover(entry, settings.node, op, found);
    // A guest that was handed over is not given up.
    if (entry !== "Unknown" && recovery?._tag !== "Start") looks++;
    if (recovery?._tag === "Start" && (yield* startHandedOver(spec, state, recovery, register))) {
      registry.settle(spec.name);
      return;
    }
    if (recovery?._tag === "Discard" && state !== "running" && state !== null) {
      // A session of our own has taken it over, or takes it when we are done.
      if (!isIdle(loader, spec.name)) return;
      loader.discarding.add(spec.name);
      const gone = yield* Effect.ensuring(
        Effect.flatMap(register.write(spec.name, recovery.record, recovery.revision), (outcome) =>
          typeof outcome === "object" ? discardArrived(spec, registry) : Effect.succeed(false),
        ),
        Effect.sync(() => loader.discarding.delete(spec.name)),
      );
      if (gone) return;
    }
    if (state === "running" && recovery !== null && recovery._tag !== "Later") {
      if (spec.moving === "arriving") registry.settle(spec.name);
      return;
    }
    yield* Effect.sleep(looks < QUICK_LOOKS ? LOOK_AGAIN_MS : LOOK_SLOWLY_MS);
  }
});

/** One that does not answer may be waiting for pages, too. */
const isPaging = (spec: GuestSpec): Effect.Effect<boolean> =>
  spec.moving !== "arriving"
    ? Effect.succeed(false)
    : Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.describe)).pipe(
        Effect.map(({ pagesMissing }) => pagesMissing === true),
        Effect.catch((error) => Effect.succeed(error.code !== "no-such-guest")),
      );

/** True once nothing is left to be done; whether the record says so is for the next reader's peace of mind. */
const startHandedOver = Effect.fnUntraced(function* (
  spec: GuestSpec,
  state: GuestLook,
  recovery: Extract<Recovery, { _tag: "Start" }>,
  register: OwnershipRegister,
): Effect.fn.Return<boolean> {
  const outcome = yield* register.write(spec.name, recovery.record, recovery.revision);
  if (typeof outcome !== "object") return false;
  const done = isOver(state) ? yield* Effect.as(tellLost(spec), true) : yield* start(spec, recovery.resume);
  if (done) yield* register.write(spec.name, recovery.closed, outcome.revision);
  return done;
});

/** A guest that will not run any more, whoever asks it to. */
const isOver = (state: GuestLook): boolean => state === "gone" || state === "shutdown" || state === "failed";

const tellLost = (spec: GuestSpec): Effect.Effect<void> =>
  Effect.logError(`guest ${spec.name} was handed over and has ended since: it is lost, no other one is started`);

/** Ends a guest that was on its way here and will not be handed over. True once it is gone. */
export const discardArrived = (spec: GuestSpec, registry: Registry): Effect.Effect<boolean> =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.discard)).pipe(
    Effect.tap(() =>
      Effect.sync(() => (spec.driver === "builtin" ? registry.remove(spec.name) : registry.settle(spec.name))),
    ),
    Effect.andThen(
      Effect.logWarning(`guest ${spec.name} was on its way here when its migration ended; what had come of it is gone`),
    ),
    Effect.as(true),
    Effect.catch((error) =>
      Effect.as(Effect.logError(`what had come of guest ${spec.name} does not go: ${error.message}`), false),
    ),
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
