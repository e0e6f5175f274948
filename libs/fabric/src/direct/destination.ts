/**
 * The destination of direct connections: one for each actor that takes packets. A session says that it takes some, by a landing; workers ask
 * for connections to it on NATS, and get a token each. A port is open only while there is a landing.
 */
import { randomBytes } from "node:crypto";
import { performance } from "node:perf_hooks";
import { GodwitError, isMalformed, json, LaneOffer, LaneRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as RcRef from "effect/RcRef";
import * as Scope from "effect/Scope";
import type { Endpoint, Message } from "../fabric.ts";
import { makeRoomMemory } from "../room-memory.ts";
import { type Announced, addressesFor, type ListenPlace, networkId } from "./addresses.ts";
import { type Door, openDoor } from "./door.ts";
import { type LandingOptions, makeQueue, type Queue } from "./landing.ts";
import { welcomeOf } from "./proof.ts";
import { makeTokens } from "./tokens.ts";

const requests = json(LaneRequest);
const offers = json(LaneOffer);

export interface DestinationOptions {
  /** The actor's role, as its errors name it. */
  readonly actor: string;
  /** Null: this host takes no direct connections. */
  readonly listen: ListenPlace | null;
  /** Offered instead of this host's own addresses, unless empty. */
  readonly announced: ReadonlyArray<Announced>;
  /** Whether connections are encrypted: as those to NATS are. */
  readonly tls: boolean;
}

export interface Landing {
  /** Packets of direct connections, as messages that have come by their channel's subject; waits for at least one. */
  readonly takeAll: Effect.Effect<ReadonlyArray<Message>>;
  /** Why no connection can be had; null: it can. */
  readonly obstacle: string | null;
  /** Nothing comes by connections any more. */
  readonly close: Effect.Effect<void>;
}

export interface DirectDestination {
  /** Answers workers: only for a landing that there is, of that very attempt, on the migration's own subject. */
  readonly endpoint: (name: string, subject: string) => Endpoint;
  /** Takes packets until the scope ends, or the landing is closed. A port that cannot be had is its `obstacle`. */
  readonly land: (options: LandingOptions, askedOn: string) => Effect.Effect<Landing, never, Scope.Scope>;
}

interface Open extends LandingOptions {
  readonly queue: Queue;
  /** The subject that the migration's own workers ask on. */
  readonly askedOn: string;
  readonly door: Door;
}

/** Different reasons for which strangers were shut out, told to the log; what comes on top is one more of them. */
const REFUSALS_TOLD_MAX = 16;

export const makeDirectDestination = Effect.fnUntraced(function* (
  options: DestinationOptions,
): Effect.fn.Return<DirectDestination, never, Scope.Scope> {
  const { actor, listen, announced, tls } = options;
  const run = Effect.runForkWith(yield* Effect.context<never>());
  const landings = new Set<Open>();
  const tokens = makeTokens<Open>(randomBytes);
  const allocate = makeRoomMemory();
  const network = networkId();
  const now = (): number => performance.now();
  const told = new Set<string>();
  const refused = (remote: string, reason: string): void => {
    if (told.has(reason) || told.size >= REFUSALS_TOLD_MAX) return;
    told.add(reason);
    run(
      Effect.logWarning(`a direct connection from ${remote} was closed: ${reason}; further ones are closed silently`),
    );
  };

  const openPort = (place: ListenPlace): Effect.Effect<Door, unknown> =>
    Effect.tryPromise({
      try: () =>
        openDoor({
          ...{ place, tls, allocate, refused },
          secretOf: (token) => tokens.secretOf(token, now()),
          admit: (hello, inlet) => {
            const found = tokens.redeem(hello, now());
            if ("refused" in found) return found;
            const attached = found.grantor.queue.attach(inlet, found.claim.channel);
            if (attached === null) return { refused: "its attempt has too many connections" };
            return { welcome: welcomeOf(hello, found.secret), ...attached };
          },
        }),
      catch: (cause) => cause,
    });
  const port = yield* RcRef.make({
    acquire: Effect.suspend(() =>
      listen === null
        ? Effect.fail("direct connections are off there (GODWIT_DIRECT_LISTEN)")
        : Effect.acquireRelease(
            openPort(listen).pipe(
              Effect.mapError((cause) => `no port: ${cause instanceof Error ? cause.message : String(cause)}`),
            ),
            (door) => Effect.sync(door.close),
          ),
    ),
  });

  const land: DirectDestination["land"] = Effect.fnUntraced(function* (wanted, askedOn) {
    const scope = yield* Scope.fork(yield* Effect.scope);
    const queue = makeQueue(wanted);
    const found = yield* Effect.result(Effect.provideService(RcRef.get(port), Scope.Scope, scope));
    const close = Scope.close(scope, Exit.void);
    if (found._tag === "Failure") return { takeAll: queue.takeAll, obstacle: found.failure, close };
    const open: Open = { ...wanted, queue, askedOn, door: found.success };
    landings.add(open);
    yield* Scope.addFinalizer(
      scope,
      Effect.sync(() => {
        landings.delete(open);
        tokens.revoke(open);
        queue.endAll();
      }),
    );
    return { takeAll: queue.takeAll, obstacle: null, close };
  });

  const answer = (data: Uint8Array, subject: string): Effect.Effect<Uint8Array, GodwitError> =>
    Effect.suspend(() => {
      const refusal = (code: "invalid-request" | "wrong-state" | "not-supported", reason: string) =>
        Effect.fail(new GodwitError({ code, actor, side: "destination", step: "offer a connection", reason }));
      const asked = requests.decode(data);
      if (isMalformed(asked)) return refusal("invalid-request", asked.malformed);
      const { migration, epoch, purpose, channel } = asked;
      // Whoever may ask for another migration asks on another subject.
      const open = [...landings].find(
        (each) =>
          each.askedOn === subject &&
          each.route.migration === migration &&
          each.epoch === epoch &&
          each.purpose === purpose,
      );
      if (open === undefined)
        return refusal("wrong-state", `this host takes no direct connections for ${purpose} of epoch ${epoch} now`);
      const addresses = addressesFor(open.door, announced, asked.network === network);
      if (addresses.length === 0)
        return refusal("not-supported", `it listens on ${open.door.host} only, which nobody else reaches`);
      const issued = tokens.issue({ grantor: open, claim: { migration, epoch, purpose, channel } }, now());
      if (issued === null) return refusal("wrong-state", "too many connections were asked for and not made");
      const { token, secret } = issued;
      return Effect.succeed(offers.encode({ addresses, tls, token, secret: secret.toString("hex") }));
    });
  return { land, endpoint: (name, subject) => ({ name, subject, handle: answer }) };
});
