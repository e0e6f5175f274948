import { performance } from "node:perf_hooks";
import { REMEDIES } from "@godwit/protocol";
import type { Msg } from "@nats-io/nats-core";
import type * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import { FabricError } from "../errors.ts";
import { Fabric, type LinkEvent, type Message, type Plane, ROUND_TRIP_MS } from "../fabric.ts";
import { type Inbox, makeInbox, makeNewsInbox } from "../inbox.ts";
import { letGo } from "../own-memory.ts";
import type { PresenceWire } from "../presence.ts";
import { presenceOn } from "../presence-effects.ts";
import { openBucket } from "./bucket.ts";
import { type NatsLink, type NatsOptions, openLink } from "./connection.ts";
import { guarded } from "./guard.ts";
import { request, serve } from "./requests.ts";
import { publishUncopied } from "./transport.ts";

/** Link changes kept for each listener that does not take them; the oldest are forgotten. */
const LINK_EVENTS_KEPT = 64;
/** Different subjects that NATS refused, told to the log; what is refused beyond them is one and the same mistake. */
const DENIALS_TOLD_MAX = 32;
/** Shorter messages are copied, bytes: several of them leave together then. */
const IN_PLACE_BYTES_MIN = 32 * 1024;
/** How long `subscribe` waits for the server to know of it, ms. */
const SUBSCRIBE_MS = 2_000;

/** `Fabric` on NATS: a control and a bulk connection, each with its own reconnects. */
export const NatsFabric = {
  /** Fails with `nats-unreachable`, `nats-denied` or `nats-too-old`; the connections close with the layer. */
  layer: (options: NatsOptions): Layer.Layer<Fabric, FabricError> => Layer.effect(Fabric, make(options)),
};

const make = Effect.fnUntraced(function* (options: NatsOptions) {
  const inboxes = new Set<{ readonly plane: Plane; readonly fail: (error: FabricError) => void }>();
  const listeners = new Set<(event: LinkEvent) => void>();
  const run = Effect.runForkWith(yield* Effect.context<never>());
  const counters = { publishesDropped: 0, messagesDropped: 0, requestsRefused: 0, malformed: 0, callbackErrors: 0 };
  let closing = false;

  const denials = new Set<string>();
  /** A publish that is refused is refused each time: the log has it once. */
  const isToldAlready = (event: LinkEvent): boolean => {
    if (event._tag !== "Denied" || denials.size >= DENIALS_TOLD_MAX) return event._tag === "Denied";
    const isOld = denials.has(event.reason);
    denials.add(event.reason);
    return isOld;
  };

  const onLinkEvent = (event: LinkEvent) => {
    for (const listener of listeners) listener(event);
    if (event._tag === "Closed") {
      const closed = closedError(`${event.plane} connection`, event.reason);
      for (const inbox of inboxes) if (inbox.plane === event.plane) inbox.fail(closed);
    }
    if (!closing && !isToldAlready(event)) run(logged(event));
  };
  const control = yield* openLink(options, "control", onLinkEvent);
  const bulk = yield* openLink(options, "bulk", onLinkEvent);
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closing = true;
    }),
  );
  const broken = (error: unknown) => {
    counters.callbackErrors++;
    run(Effect.logError("a callback of the fabric has thrown").pipe(Effect.annotateLogs({ error })));
  };
  const linkOf = (plane: Plane): NatsLink => (plane === "bulk" ? bulk : control);
  const maxPayloadBytes = Math.min(...[control, bulk].map((link) => link.nc.info?.max_payload ?? 0));

  /** Whatever cannot leave is dropped and counted: without a link, too long, not a subject, or a connection that closed this instant. */
  const published = (data: Uint8Array, link: NatsLink, hand: (link: NatsLink) => boolean): boolean => {
    if (link.connected() && data.length <= maxPayloadBytes) {
      try {
        if (hand(link)) return true;
      } catch {
        // As said above.
      }
    }
    counters.publishesDropped++;
    return false;
  };
  const publish = (subject: string, data: Uint8Array, plane: Plane = "control"): boolean =>
    published(data, linkOf(plane), ({ nc }) => {
      nc.publish(subject, data);
      return true;
    });
  const publishInPlace = (subject: string, data: Uint8Array, plane: Plane, done: () => void): boolean => {
    if (data.length < IN_PLACE_BYTES_MIN) {
      const isSent = publish(subject, data, plane);
      // The client copies it before.
      queueMicrotask(done);
      return isSent;
    }
    const isSent = published(data, linkOf(plane), ({ nc }) => publishUncopied(nc, subject, data, done));
    if (!isSent) done();
    return isSent;
  };

  /** An inbox that fails when its connection closes, and is forgotten with the scope. */
  const trackedInbox = <A>(plane: Plane, capacity: number): Effect.Effect<Inbox<A>, never, Scope.Scope> =>
    Effect.acquireRelease(
      makeInbox<A>(capacity)
        .pipe(Effect.map((inbox) => ({ inbox, entry: { plane, fail: inbox.fail } })))
        .pipe(Effect.tap(({ entry }) => Effect.sync(() => inboxes.add(entry)))),
      ({ entry }) => Effect.sync(() => inboxes.delete(entry)),
    ).pipe(Effect.map(({ inbox }) => inbox));

  /** Calls `receive` for each message until the scope ends. Complete when the server knows of it. */
  const received = Effect.fnUntraced(function* (
    plane: Plane,
    subject: string,
    receive: (error: Error | null, message: Msg) => void,
  ) {
    const { nc, connected } = linkOf(plane);
    yield* Effect.acquireRelease(
      Effect.try({
        try: () => nc.subscribe(subject, { callback: guarded(receive, broken) }),
        catch: (cause) => closedError(`subscribe ${subject}`, cause instanceof Error ? cause.message : String(cause)),
      }),
      (subscription) => Effect.sync(() => subscription.unsubscribe()),
    );
    // Without a link, or when it breaks now, there is nothing to wait for: reconnecting subscribes again.
    if (connected()) {
      yield* Effect.promise(() => nc.flush().catch(() => {})).pipe(Effect.timeoutOption(SUBSCRIBE_MS));
    }
  });

  const subscribe: Context.Service.Shape<typeof Fabric>["subscribe"] = Effect.fnUntraced(
    function* (subject, subscribeOptions) {
      const { capacity, plane = "control" } = subscribeOptions;
      const inbox = yield* trackedInbox<Message>(plane, capacity);
      yield* received(plane, subject, (error, message) => {
        if (error !== null) inbox.fail(deniedError(`subscribe ${subject}`, error.message));
        else if (!inbox.offer({ subject: message.subject, data: message.data })) {
          counters.messagesDropped++;
          letGo(message.data);
        }
      });
      return { takeAll: inbox.takeAll, dropped: inbox.dropped };
    },
  );

  const wire: PresenceWire = {
    publish,
    subscribe: (subject, receive) => {
      const subscription = control.nc.subscribe(subject, {
        callback: guarded((error, message) => {
          // Denied: the link's listener has been told.
          if (error === null) receive(message.subject, message.data);
        }, broken),
      });
      return () => subscription.unsubscribe();
    },
    roundTrip: (settled) => {
      control.nc.flush().then(
        () => settled(true),
        () => settled(false),
      );
    },
    every: (ms, tick) => {
      const timer = setInterval(tick, ms);
      return () => clearInterval(timer);
    },
    now: () => performance.now(),
    wallClock: () => Date.now(),
  };
  const presence = presenceOn(wire, trackedInbox, () => {
    counters.malformed++;
  });

  return Fabric.of({
    maxPayloadBytes,
    isEncrypted: [control, bulk].every((link) => link.isEncrypted),
    publish,
    publishInPlace,
    subscribe,
    listen: (subject, receive) =>
      received("control", subject, (error, message) => {
        // Denied: the link's listener has been told.
        if (error === null) receive({ subject: message.subject, data: message.data });
      }),
    request: (subject, data, requestOptions) => request(control.nc, subject, data, requestOptions.timeoutMs),
    serve: (definition) =>
      serve(control.nc, options.name, definition, () => {
        counters.requestsRefused++;
      }),
    bucket: (name) => openBucket(control.nc, name, options.jsDomain),
    ...presence,
    roundTrip: (plane) => roundTrip(linkOf(plane)),
    link: Effect.acquireRelease(
      Effect.map(makeNewsInbox<LinkEvent>(LINK_EVENTS_KEPT), (inbox) => {
        const listener = (event: LinkEvent) => {
          inbox.offer(event);
        };
        listeners.add(listener);
        return { takeAll: inbox.takeAll, listener };
      }),
      ({ listener }) => Effect.sync(() => listeners.delete(listener)),
    ),
    counters: () => ({ ...counters }),
  });
});

const roundTrip = ({ plane, nc, connected }: NatsLink): Effect.Effect<void, FabricError> => {
  const failed = (reason: string) =>
    new FabricError({ code: "nats-unreachable", operation: `ask on the ${plane} connection`, reason, retryable: true });
  return Effect.suspend(() =>
    connected()
      ? Effect.tryPromise({ try: () => nc.flush(), catch: (cause) => failed(String(cause)) })
      : Effect.fail(failed("there is no link to a NATS server")),
  ).pipe(
    Effect.timeoutOrElse({
      duration: ROUND_TRIP_MS,
      orElse: () => Effect.fail(failed(`no answer of the server within ${ROUND_TRIP_MS} ms`)),
    }),
  );
};

/** Losing a link loses messages; what an operator sees first when guests stay paused. */
const logged = (event: LinkEvent): Effect.Effect<void> => {
  const line = `NATS ${event.plane} link: ${event._tag}`;
  if (event._tag === "Denied") return Effect.logError(`${line}: ${event.reason}; ${REMEDIES["nats-denied"]}`);
  if (event._tag === "Reconnected") return Effect.logInfo(line);
  return Effect.logWarning("reason" in event ? `${line}: ${event.reason}` : line);
};

const closedError = (operation: string, reason: string): FabricError =>
  new FabricError({ code: "closed", operation, reason, retryable: false });
const deniedError = (operation: string, reason: string): FabricError =>
  new FabricError({ code: "nats-denied", operation, reason, retryable: false });
