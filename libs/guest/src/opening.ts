/** From a guest's name to the guest, at either end of a migration. */
import type { RamBlock } from "@godwit/memory";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { BuiltinDriver } from "./builtin/driver.ts";
import { startBuiltinIncoming } from "./builtin/launch.ts";
import type { Guest, GuestSpec } from "./guest.ts";
import { QemuDriver } from "./qemu/driver.ts";
import { launchQemu } from "./qemu/launch.ts";
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
  },
  guestDirectory: string,
): Effect.fn.Return<{ readonly spec: GuestSpec; readonly guest: Guest }, GodwitError, Scope.Scope> {
  const arriving = (spec: GuestSpec): GuestSpec => markArriving(registry, spec, offer.epoch);
  const present = yield* find(registry, offer.name);
  if (present !== null) {
    const waiting = yield* openWaiting(present, offer.epoch);
    if (waiting !== null) return { spec: arriving(present), guest: waiting };
  }
  if (offer.driver === "qemu") {
    if (present?.driver === "qemu" && present.launch !== undefined) {
      yield* launchQemu(present, present.launch);
      return { spec: arriving(present), guest: yield* openGuest(present) };
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
  const spec = yield* startBuiltinIncoming(offer.name, offer.blocks, guestDirectory, arriving).pipe(
    Effect.tapError(() => Effect.sync(() => (present === null ? registry.remove(offer.name) : registry.put(present)))),
    Effect.catchIf(
      ({ code }) => code === "guest-exists" && present?.moving === "arriving",
      (error) => lateComer(present!, offer.epoch, error),
    ),
  );
  return { spec: arriving(spec), guest: yield* openGuest(spec) };
});

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
  const { runState } = opened.description;
  if (runState === "incoming") return opened.guest;
  // One that is loaded may have been handed over, unless it belongs to an attempt that this one has fenced off.
  if (runState === "paused" && spec.moving === "arriving" && (spec.epoch ?? 0) < epoch) {
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
