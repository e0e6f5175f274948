/** From a guest's name to the guest, at either end of a migration. */
import type { RamBlock } from "@godwit/memory";
import { GodwitError, type OfferedDevice } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { incomingDevices } from "./builtin/devices.ts";
import { BuiltinDriver } from "./builtin/driver.ts";
import { startBuiltinIncoming } from "./builtin/launch.ts";
import type { Guest, GuestSpec } from "./guest.ts";
import { QemuDriver } from "./qemu/driver.ts";
import { launchQemu, quitLaunched } from "./qemu/launch.ts";
import type { Registry } from "./registry.ts";

export const openGuest = (spec: GuestSpec): Effect.Effect<Guest, GodwitError, Scope.Scope> =>
  spec.driver === "builtin" ? BuiltinDriver.open(spec) : QemuDriver.open(spec);

const find = (registry: Registry, name: string): Effect.Effect<GuestSpec | null, GodwitError> =>
  Effect.try({
    try: () => registry.find(name),
    catch: (cause) =>
      new GodwitError({
        code: "guest-failed",
        actor: "node",
        step: "read the guest registry",
        reason: cause instanceof Error ? cause.message : String(cause),
      }),
  });

/** A guest that this node has. Fails with `no-such-guest`. */
export const openRegistered = Effect.fnUntraced(function* (registry: Registry, name: string) {
  const spec = yield* find(registry, name);
  if (spec === null) {
    return yield* new GodwitError({
      code: "no-such-guest",
      actor: "node",
      step: "find the guest",
      reason: `this node has no guest ${name}`,
    });
  }
  return { spec, guest: yield* openGuest(spec) };
});

/** A guest that shall receive a migration. */
export interface Receiving {
  readonly spec: GuestSpec;
  readonly guest: Guest;
  /** For an attempt that comes to nothing before its guest was touched: a guest that was started for it is ended, one that was there waits on; the registry is as it was. */
  readonly undo: Effect.Effect<void>;
}

/**
 * The guest that shall receive a migration, in run state `incoming`: one that waits already, or one that is started for it. It is
 * registered as `arriving`; the caller settles that. A guest of that name that runs, or stands still with a life of its own, is
 * refused with `guest-exists` and left alone. To be called only for an attempt whose claim was won: what an earlier attempt
 * has loaded and not handed over is ended.
 */
export const openDestination = Effect.fnUntraced(function* (
  registry: Registry,
  offer: {
    readonly name: string;
    readonly driver: GuestSpec["driver"];
    readonly blocks: ReadonlyArray<RamBlock>;
    /** Of the attempt: what one of a lower epoch has loaded was not handed over, since this one's claim was won. */
    readonly epoch: number;
    readonly devices: ReadonlyArray<OfferedDevice>;
  },
  guestDirectory: string,
): Effect.fn.Return<Receiving, GodwitError, Scope.Scope> {
  const arriving = (spec: GuestSpec): GuestSpec => markArriving(registry, spec, offer.epoch);
  const present = yield* find(registry, offer.name);
  const restore = Effect.sync(() => (present === null ? registry.remove(offer.name) : registry.put(present)));
  if (present !== null) {
    const waiting = yield* openWaiting(present, offer.epoch);
    if (waiting !== null) return { spec: arriving(present), guest: waiting, undo: reluctantly(restore) };
  }
  if (offer.driver === "qemu") {
    if (present?.driver === "qemu" && present.launch !== undefined) {
      // Noted first: what cannot be noted is not started.
      const spec = arriving(present);
      yield* launchQemu(present, present.launch).pipe(Effect.onError(() => restore));
      const undo = reluctantly(Effect.andThen(quitLaunched(present), restore));
      return { spec, guest: yield* openGuest(present), undo };
    }
    const reason = `this node has no QEMU for guest ${offer.name}; start one with -incoming defer and give its monitor to godwit node --guest ${offer.name}=qemu:SOCKET`;
    return yield* new GodwitError({
      code: "no-such-guest",
      actor: "loader",
      side: "destination",
      step: "prepare the guest",
      reason,
    });
  }
  const devices = yield* incomingDevices(offer.devices);
  // Noted as soon as there is a process.
  const started = yield* startBuiltinIncoming(offer.name, offer.blocks, guestDirectory, arriving, devices).pipe(
    Effect.map((spec) => ({ spec, end: Effect.flatMap(openGuest(spec), (guest) => guest.discard) })),
    Effect.tapError(() => restore),
    Effect.catchIf(
      ({ code }) => code === "guest-exists" && present?.moving === "arriving",
      (error) => Effect.map(lateComer(present!, offer.epoch, error), (spec) => ({ spec, end: Effect.void })),
    ),
  );
  const undo = reluctantly(Effect.andThen(Effect.scoped(started.end), restore));
  const spec = yield* Effect.onError(
    Effect.sync(() => arriving(started.spec)),
    () => undo,
  );
  return { spec, guest: yield* openGuest(spec), undo };
});

/** What is undone because something has failed fails no more: whoever comes next finds what is left. */
const reluctantly = (undo: Effect.Effect<void, GodwitError>): Effect.Effect<void> =>
  Effect.catchCause(undo, (cause) => Effect.logWarning("what was begun for a guest cannot be undone", cause));

/** The name is held by a process that an earlier life of this actor had started, and that was not ready when it was looked for. */
const lateComer = (
  present: GuestSpec,
  epoch: number,
  error: GodwitError,
): Effect.Effect<GuestSpec, GodwitError, Scope.Scope> =>
  Effect.flatMap(openWaiting(present, epoch), (waiting) =>
    waiting === null ? Effect.fail(error) : Effect.succeed(present),
  );

const markArriving = (registry: Registry, spec: GuestSpec, epoch: number): GuestSpec => {
  const marked: GuestSpec = { ...spec, moving: "arriving", epoch };
  registry.put(marked);
  return marked;
};

/** The registered guest if it waits for a migration, null if it is gone or was never handed over; anything else is somebody's guest. */
const openWaiting = Effect.fnUntraced(function* (spec: GuestSpec, epoch: number) {
  const opened = yield* openGuest(spec).pipe(
    Effect.flatMap((guest) => Effect.map(guest.describe, (description) => ({ guest, description }))),
    Effect.catchIf(
      (error) => error.code === "guest-failed" || error.code === "no-such-guest",
      () => Effect.succeed(null),
    ),
  );
  if (opened === null) return null;
  const { runState, pagesMissing } = opened.description;
  // One that was told to wait for pages would wait for ever for zeros that nobody sends.
  if (runState === "incoming" && pagesMissing === true && spec.moving === "arriving" && (spec.epoch ?? 0) < epoch) {
    yield* opened.guest.discard;
    return null;
  }
  if (runState === "incoming") return opened.guest;
  // One that is loaded may have been handed over, unless it belongs to an attempt that this one has fenced off; one that failed, or was
  // fed, is of no more use.
  if ((runState === "paused" || runState === "failed") && spec.moving === "arriving" && (spec.epoch ?? 0) < epoch) {
    yield* opened.guest.discard;
    return null;
  }
  return yield* new GodwitError({
    code: "guest-exists",
    actor: "loader",
    side: "destination",
    step: "prepare the guest",
    reason: `this node has a guest ${spec.name} already, and it is ${runState}`,
  });
});
