import * as Clock from "effect/Clock";
import type * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import { FabricError, NoResponders, RequestTimeout } from "./errors.ts";
import { Fabric, type LinkEvent, type Message, type Plane, ROUND_TRIP_MS } from "./fabric.ts";
import { type Inbox, makeInbox, makeNewsInbox } from "./inbox.ts";
import type { PresenceWire } from "./presence.ts";
import { presenceOn } from "./presence-effects.ts";
import { makeHandlers, openReply, type Reply } from "./requests.ts";
import { simBucket } from "./sim-bucket.ts";
import { actorClock } from "./sim-clock.ts";
import type { SimNetwork } from "./simulation/index.ts";

/** The default of nats-server. */
const MAX_PAYLOAD_BYTES = 1_048_576;
/** As on NATS. */
const LINK_EVENTS_KEPT = 64;
/** The server, which answers round trips. */
const SERVER = "nats-server";
const ROUND_TRIP_TIMEOUT_MS = 3_000;

/**
 * `Fabric` on a simulated network, for the shells of actors. Run it with `simulate`, which also gives fibers the network's time:
 * the layer brings the actor's own clock, in which nothing happens while the actor is paused.
 */
export const SimFabric = {
  /** Belongs to the actor's present life: once it crashes, whatever still holds this fabric is not heard any more. */
  layer: (network: SimNetwork, actor: string): Layer.Layer<Fabric> =>
    Layer.merge(Layer.effect(Fabric, make(network, actor)), Layer.succeed(Clock.Clock, actorClock(network, actor))),
};

const make = Effect.fnUntraced(function* (network: SimNetwork, actor: string) {
  const counters = { publishesDropped: 0, messagesDropped: 0, requestsRefused: 0, malformed: 0, callbackErrors: 0 };
  // An actor that `network.start` booted has its own way to restart; this must not replace it.
  if (network.life(actor) === 0) network.start(actor);
  const life = network.life(actor);
  const lives = () => network.life(actor) === life;
  /** What the dead ask is not heard, not even when the actor lives again. */
  const whileAlive = <A, E>(ask: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => (lives() ? ask : Effect.never));

  const publish = (subject: string, data: Uint8Array): boolean => {
    if (lives() && network.isConnected(actor) && data.length <= MAX_PAYLOAD_BYTES) {
      network.send(actor, subject, data.slice());
      return true;
    }
    counters.publishesDropped++;
    return false;
  };

  /** The scope may end after the actor's life; the subscription has then ended before. */
  const subscribed = (
    subject: string,
    receive: (data: Uint8Array, subject: string, answer?: (reply: unknown) => void) => void,
    queue = "",
  ): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() =>
        lives()
          ? network.subscribe(actor, subject, (payload, on, answer) => receive(payload as Uint8Array, on, answer), {
              queue,
            })
          : () => {},
      ),
      (unsubscribe) => Effect.sync(unsubscribe),
    );

  const openInbox = <A>(_plane: Plane, capacity: number): Effect.Effect<Inbox<A>, never, Scope.Scope> =>
    makeInbox<A>(capacity);

  const wire: PresenceWire = {
    publish,
    subscribe: (subject, receive) =>
      lives() ? network.subscribe(actor, subject, (payload, on) => receive(on, payload as Uint8Array)) : () => {},
    roundTrip: (settled) =>
      network.ask(
        actor,
        SERVER,
        () => true,
        { timeoutMs: ROUND_TRIP_TIMEOUT_MS, lateMs: 0 },
        (arrived) => settled(arrived === true),
      ),
    every: (ms, tick) => {
      let cancel = () => {};
      const again = () => {
        if (!lives()) return;
        cancel = network.timer(actor, ms, () => {
          again();
          tick();
        });
      };
      again();
      return () => cancel();
    },
    now: () => network.now(),
    wallClock: () => network.now(),
  };
  const presence = presenceOn(wire, openInbox, () => {
    counters.malformed++;
  });

  const shape: Context.Service.Shape<typeof Fabric> = {
    maxPayloadBytes: MAX_PAYLOAD_BYTES,
    isEncrypted: false,
    publish,
    publishInPlace: (subject, data, _plane, done) => {
      const isSent = publish(subject, data);
      done();
      return isSent;
    },
    subscribe: Effect.fnUntraced(function* (subject, options) {
      const inbox = yield* makeInbox<Message>(options.capacity);
      yield* subscribed(subject, (data, on) => {
        if (!inbox.offer({ subject: on, data })) counters.messagesDropped++;
      });
      return { takeAll: inbox.takeAll, dropped: inbox.dropped };
    }),
    listen: (subject, receive) =>
      subscribed(subject, (data, on) => {
        try {
          receive({ subject: on, data });
        } catch {
          counters.callbackErrors++;
        }
      }),
    request: (subject, data, { timeoutMs }) =>
      Effect.callback<Reply, NoResponders | RequestTimeout>((resume) => {
        network.request(actor, subject, data.slice(), timeoutMs, (reply) => {
          if (reply._tag === "Answer") resume(Effect.succeed(reply.payload as Reply));
          else if (reply._tag === "NoResponders") resume(Effect.fail(new NoResponders({ subject })));
          else resume(Effect.fail(new RequestTimeout({ subject, timeoutMs })));
        });
      }).pipe(
        Effect.flatMap((reply) => openReply(subject, reply)),
        whileAlive,
      ),
    serve: Effect.fnUntraced(function* (definition) {
      const handle = yield* makeHandlers(actor, () => {
        counters.requestsRefused++;
      });
      for (const endpoint of definition.endpoints) {
        yield* subscribed(
          endpoint.subject,
          (data, subject, answer) => handle(endpoint, subject, data, (reply) => answer?.(reply)),
          endpoint.queue,
        );
      }
    }),
    bucket: (name) => Effect.sync(() => simBucket(network.register(name), actor, whileAlive)),
    ...presence,
    roundTrip: (plane) =>
      Effect.callback<void, FabricError>((resume) => {
        const reason = `no answer of the server within ${ROUND_TRIP_MS} ms`;
        const operation = `ask on the ${plane} connection`;
        const lost = new FabricError({ code: "nats-unreachable", operation, reason, retryable: true });
        const times = { timeoutMs: ROUND_TRIP_MS, lateMs: 0 };
        network.ask(
          actor,
          SERVER,
          () => true,
          times,
          (arrived) => resume(arrived === true ? Effect.void : Effect.fail(lost)),
        );
      }).pipe(whileAlive),
    link: Effect.gen(function* () {
      const inbox = yield* makeNewsInbox<LinkEvent>(LINK_EVENTS_KEPT);
      yield* Effect.acquireRelease(
        Effect.sync(() =>
          network.onLink(actor, (connected) => {
            const _tag = connected ? "Reconnected" : "Disconnected";
            for (const plane of ["control", "bulk"] as const) inbox.offer({ _tag, plane });
          }),
        ),
        (forget) => Effect.sync(forget),
      );
      return { takeAll: inbox.takeAll };
    }),
    counters: () => ({ ...counters }),
  };
  return Fabric.of(shape);
});
