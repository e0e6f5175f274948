/** The guests that a command brings to a node: QEMUs that are there, and builtin ones that are started and ended with it. */
import { openOwnershipRegister } from "@godwit/actor";
import type { Fabric } from "@godwit/fabric";
import { type GuestSpec, openGuest, openRegistry, startBuiltin } from "@godwit/guest";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { GuestArgument } from "../arguments/guest-argument.ts";
import { fromFabric } from "../connection.ts";

type BuiltinArgument = Extract<GuestArgument, { driver: "builtin" }>;

export interface GuestHost {
  readonly node: string;
  readonly runtimeDirectory: string;
  readonly guestDirectory: string;
}

/**
 * The specs to register. A builtin guest ends with the scope, unless it has moved away by then. One of that name that this node has
 * already is taken as it is; one that the ownership record knows at another node is not started: a guest exists once.
 */
export const bringGuests = (
  host: GuestHost,
  guests: ReadonlyArray<GuestArgument>,
): Effect.Effect<ReadonlyArray<GuestSpec>, GodwitError, Fabric | Scope.Scope> =>
  Effect.map(
    Effect.forEach(guests, (guest) =>
      guest.driver === "qemu" ? Effect.succeed<GuestSpec | null>(guest) : bringBuiltin(host, guest),
    ),
    (specs) => specs.filter((spec) => spec !== null),
  );

/**
 * The same for guests that stay when this process ends; they are registered here. What the registry has already is left alone: other
 * actors of the host may be moving that guest just now, and write down what becomes of it.
 */
export const keepGuests = (
  host: GuestHost,
  guests: ReadonlyArray<GuestArgument>,
): Effect.Effect<void, GodwitError, Fabric> =>
  Effect.forEach(
    guests,
    Effect.fnUntraced(function* (guest) {
      const registry = openRegistry(host.runtimeDirectory);
      const present = registry.find(guest.name);
      if (guest.driver === "qemu") {
        if (present?.driver !== "qemu" || present.qmp !== guest.qmp) registry.put(guest);
        return;
      }
      const spec = yield* startUnlessThere(host, guest);
      if (spec?.driver === "builtin" && !(present?.driver === "builtin" && present.pid === spec.pid))
        registry.put(spec);
    }),
    { discard: true },
  );

const bringBuiltin = (host: GuestHost, guest: BuiltinArgument) =>
  Effect.acquireRelease(startUnlessThere(host, guest), (spec) =>
    spec === null ? Effect.void : endGuest(spec, openRegistry(host.runtimeDirectory)),
  );

const startUnlessThere = Effect.fnUntraced(function* (
  host: GuestHost,
  { name, options }: BuiltinArgument,
): Effect.fn.Return<GuestSpec | null, GodwitError, Fabric> {
  const registry = openRegistry(host.runtimeDirectory);
  const present = registry.find(name);
  const elsewhere = yield* nodeOf(name);
  if (present !== null && (yield* isAlive(present))) {
    yield* Effect.logInfo(`guest ${name} is here already, and is taken as it is`);
    return present;
  }
  if (elsewhere !== null && elsewhere !== host.node) {
    yield* Effect.logWarning(`guest ${name} is at node ${elsewhere}: it is not started here`);
    return null;
  }
  return yield* startBuiltin({ ...options, directory: host.guestDirectory });
});

const isAlive = (spec: GuestSpec): Effect.Effect<boolean> =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.describe)).pipe(
    Effect.as(true),
    Effect.catch(() => Effect.succeed(false)),
  );

/** The node that may run the guest, as far as the ownership record knows the guest. */
const nodeOf = (guest: string): Effect.Effect<string | null, GodwitError, Fabric> =>
  Effect.gen(function* () {
    const register = yield* openOwnershipRegister.pipe(Effect.mapError(fromFabric));
    const entry = yield* register.read(guest);
    if (entry === "Unknown") {
      return yield* new GodwitError({
        code: "ownership-unknown",
        actor: "node",
        step: "start a builtin guest",
        reason: `whether guest ${guest} is somewhere else already cannot be read`,
      });
    }
    return entry?.record.node ?? null;
  });

const endGuest = (spec: GuestSpec, registry: ReturnType<typeof openRegistry>): Effect.Effect<void> =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.discard)).pipe(
    Effect.tap(() =>
      Effect.sync(() => {
        // Another one of that name may have arrived meanwhile.
        const registered = registry.find(spec.name);
        if (registered?.driver === "builtin" && spec.driver === "builtin" && registered.pid === spec.pid) {
          registry.remove(spec.name);
        }
      }),
    ),
    Effect.catch((error) => Effect.logError(`guest ${spec.name} could not be ended: ${error.message}`)),
  );
