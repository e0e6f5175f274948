import type { GodwitError } from "@godwit/protocol";
import * as Context from "effect/Context";
import type * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { FabricError, RequestError } from "./errors.ts";

/** Which of an actor's two connections carries a message: bulk on the control connection would turn a 0.4 ms round trip into 35-256 ms. */
export type Plane = "control" | "bulk";

export interface Message {
  readonly subject: string;
  /** Valid until the receiver drops it, or says so (`letGo`), which frees a long one, or lets another use its memory, in that turn. */
  readonly data: Uint8Array;
}

/**
 * Messages that arrived and were not taken yet: at most `capacity` of them. What comes on top is dropped and counted,
 * never queued: whoever needs every message has credits and acknowledgements for that (R1, R5).
 */
export interface Subscription {
  /** Waits for at least one message, then takes all that are there, in order of arrival. */
  readonly takeAll: Effect.Effect<ReadonlyArray<Message>, FabricError>;
  /** Messages dropped so far because the queue was full. */
  readonly dropped: () => number;
}

/**
 * The answer to a compare-and-set. `Unknown` (an error, a timeout) means that it may have happened, or may happen later (O5):
 * settle it with another compare-and-set, never by a guess.
 */
export type CasOutcome =
  | { readonly _tag: "Won"; readonly revision: number }
  | { readonly _tag: "Lost" }
  | { readonly _tag: "Unknown"; readonly reason: string };

export interface BucketEntry {
  readonly value: Uint8Array;
  readonly revision: number;
}

/** Linearizable registers. A read may be stale: only a compare-and-set that was won is proof. */
export interface Bucket {
  /** `null`: no such key. */
  readonly get: (key: string) => Effect.Effect<BucketEntry | null, FabricError>;
  readonly keys: Effect.Effect<ReadonlyArray<string>, FabricError>;
  /** `revision` 0 creates the key. The revision to go on from is the one in `Won`, which is that of this very write. */
  readonly compareAndSet: (key: string, value: Uint8Array, revision: number) => Effect.Effect<CasOutcome>;
}

/** Who is there. An actor that restarts has the same `id` and another `incarnation`. */
export interface Member {
  readonly role: string;
  readonly node: string;
  readonly id: string;
  readonly incarnation: string;
  /** The version of the protocol that it speaks, as its own fabric says in each beat; absent: it has not said, or is not heard of yet. */
  readonly protocol?: string;
}
export type PresenceEvent =
  | { readonly _tag: "Up"; readonly member: Member }
  | { readonly _tag: "Down"; readonly member: Member; readonly why: "silent" | "exited" };

export interface Endpoint {
  readonly name: string;
  /** May hold wildcards: `handle` is told the subject that the request came by. */
  readonly subject: string;
  /** Replicas that share a queue get each request once between them; without it every one gets it. */
  readonly queue?: string;
  /** A failure becomes the reply that `request` fails with at the other side. */
  readonly handle: (data: Uint8Array, subject: string) => Effect.Effect<Uint8Array, GodwitError>;
}
export interface ServiceDefinition {
  /** NATS micro service name, as `nats micro ls` lists it. */
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly endpoints: ReadonlyArray<Endpoint>;
}

/**
 * What became of this actor's own link. Everything published between `Disconnected` and `Reconnected` is lost without a word,
 * and a little of what was published just before. `Denied`: the server refused a subject to these credentials; a refused
 * publish is told in no other way. `Closed` is final (credentials expired or revoked): nothing works any more.
 */
export type LinkEvent =
  | { readonly _tag: "Disconnected"; readonly plane: Plane }
  | { readonly _tag: "Reconnected"; readonly plane: Plane }
  | { readonly _tag: "Denied"; readonly plane: Plane; readonly reason: string }
  | { readonly _tag: "Closed"; readonly plane: Plane; readonly reason: string };

/** Changes that are not taken by messages but by looking: what cancels itself between two looks may not show. */
export interface News<A> {
  /** Waits for at least one, then takes all that are there, in order. */
  readonly takeAll: Effect.Effect<ReadonlyArray<A>, FabricError>;
}

/** What was lost here, at this actor, since it started. */
export interface FabricCounters {
  /** Publishes dropped: no link, larger than `maxPayloadBytes`, or not a subject. */
  readonly publishesDropped: number;
  /** Messages that arrived at a subscription whose queue was full. */
  readonly messagesDropped: number;
  /** Requests turned away because too many were being handled. */
  readonly requestsRefused: number;
  /** Presence messages that were not ours or malformed. */
  readonly malformed: number;
  /** Bugs in the fabric itself that would have deafened the connection. */
  readonly callbackErrors: number;
}

/**
 * How actors talk. One layer on NATS, one on a simulated network with virtual time and seeded faults; both pass the same
 * conformance suite (`fabric.conformance.ts`). Messages are at most once: any may be lost, doubled, delayed or reordered.
 */
export class Fabric extends Context.Service<
  Fabric,
  {
    /** The largest payload one message may have, bytes; read from the server. */
    readonly maxPayloadBytes: number;
    /** Whether what is said to the server is encrypted on its way. */
    readonly isEncrypted: boolean;
    /**
     * Hands a message to the network and returns at once; never throws, never waits. False: it was dropped here (see
     * `FabricCounters`); true promises nothing. `data` must not be written to before the next tick. Default plane: control.
     */
    readonly publish: (subject: string, data: Uint8Array, plane?: Plane) => boolean;
    /**
     * As `publish`, for long messages: `data` is sent from where it stands, so it must stay as it is until `done`, which is called once, also
     * when it was dropped, and maybe before this returns.
     */
    readonly publishInPlace: (subject: string, data: Uint8Array, plane: Plane, done: () => void) => boolean;
    /** Complete when the server knows of it: what is published from then on, by anybody, arrives (or is lost like any message). */
    readonly subscribe: (
      subject: string,
      options: { readonly capacity: number; readonly plane?: Plane },
    ) => Effect.Effect<Subscription, FabricError, Scope.Scope>;
    /**
     * The same on the control plane without a queue: `receive` is called with each message when it arrives, before anything else has a
     * turn. For what somebody waits for, never for bulk: all other messages of the connection wait meanwhile. It may publish; what it
     * throws is logged and counted.
     */
    readonly listen: (
      subject: string,
      receive: (message: Message) => void,
    ) => Effect.Effect<void, FabricError, Scope.Scope>;
    /** Fails at once with `NoResponders` when nobody subscribes. Never repeated by itself. */
    readonly request: (
      subject: string,
      data: Uint8Array,
      options: { readonly timeoutMs: number },
    ) => Effect.Effect<Uint8Array, RequestError>;
    /** Serves until the scope ends. At most HANDLERS_MAX requests are handled at a time; further ones fail, retryable. */
    readonly serve: (service: ServiceDefinition) => Effect.Effect<void, FabricError, Scope.Scope>;
    /**
     * Opens the bucket of this name (a token). It never makes one: a bucket that vanished, made anew, would say that no guest was
     * ever handed over. Fails with `bucket-missing`, and with `bucket-unsafe` for one that is configured so that records could be
     * lost or stale; the reason names each value.
     */
    readonly bucket: (name: string) => Effect.Effect<Bucket, FabricError>;
    /** Beats every HEARTBEAT_MS until the scope ends, then says goodbye. */
    readonly announce: (member: Member) => Effect.Effect<void, FabricError, Scope.Scope>;
    /** A supervisor's word that a process has exited: watchers need not wait for silence. */
    readonly declareExited: (member: Member) => void;
    /** Members of a role (or of all roles) on a node (or all nodes): first those that are up, then changes as they come. */
    readonly watch: (filter: {
      readonly role?: string;
      readonly node?: string;
    }) => Effect.Effect<News<PresenceEvent>, FabricError, Scope.Scope>;
    /** Succeeds once the server has answered on this connection. Fails with `nats-unreachable` without a link, or after ROUND_TRIP_MS. */
    readonly roundTrip: (plane: Plane) => Effect.Effect<void, FabricError>;
    /** Changes of this actor's own link, for whoever must re-send; the oldest are forgotten when nobody takes them. */
    readonly link: Effect.Effect<News<LinkEvent>, never, Scope.Scope>;
    readonly counters: () => FabricCounters;
  }
>()("@godwit/fabric/Fabric") {}

/** How often an actor says that it is there, ms. */
export const HEARTBEAT_MS = 200;
/** Silence after which a member counts as gone, ms: four missed beats, so that a death is noticed within a second. */
export const SILENT_MS = 800;
/** How long a server may take to answer a round trip, ms: one takes 0.4 ms, behind a full bulk connection some hundred. */
export const ROUND_TRIP_MS = 2_000;
/** Requests one service handles at a time. Each holds a fiber and its payload; control requests are few and short. */
export const HANDLERS_MAX = 256;
