/** Large things in JetStream: an object store, reached over a connection of its own, so that what is large delays no word of an actor. */
import { jetstream, StorageType } from "@nats-io/jetstream";
import { Objm, type ObjectStore as Store } from "@nats-io/obj";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { FabricError } from "../errors.ts";
import { type NatsOptions, openLink } from "./connection.ts";
import { jetStreamIn } from "./jetstream-domain.ts";
import { hasCode, NO_SUITABLE_PEERS, NOT_CLUSTERED, refail, withoutCode } from "./jetstream-failure.ts";

/** How long one request may take, ms: a chunk of 128 KiB on a busy server. */
const OPERATION_TIMEOUT_MS = 5_000;
/** How long an object may take on its way, ms: the client's library waits for ever for chunks that were lost with a connection. */
const TRANSFER_TIMEOUT_MS = 30_000;
const REPLICAS_OF_A_CLUSTER = 3;

/** An object as its store has it. */
export interface StoredObject {
  readonly name: string;
  readonly bytes: number;
  /** `SHA-256=` and base64url, as object stores write it. */
  readonly digest: string;
}

/** Every operation may be repeated. Fails with `bucket-missing` when there is no such store, with `no-space` when it is full. */
export interface ObjectStore {
  readonly info: (name: string) => Effect.Effect<StoredObject | null, FabricError>;
  /** Replaces what is there of that name. */
  readonly put: (name: string, content: Uint8Array) => Effect.Effect<void, FabricError>;
  /** The whole content, found to have its digest; null: there is no such object. */
  readonly get: (name: string) => Effect.Effect<Uint8Array | null, FabricError>;
  readonly remove: (name: string) => Effect.Effect<void, FabricError>;
  readonly list: Effect.Effect<ReadonlyArray<StoredObject>, FabricError>;
}

const missing = (bucket: string): FabricError =>
  new FabricError({
    code: "bucket-missing",
    operation: `open object store ${bucket}`,
    reason: `there is none; \`godwit setup-nats --objects ${bucket}\` makes it`,
    retryable: false,
  });

/** Opens a store that is there, for the life of the scope; it is never made here. */
export const openObjectStore = (
  options: NatsOptions,
  bucket: string,
): Effect.Effect<ObjectStore, FabricError, Scope.Scope> =>
  Effect.gen(function* () {
    const { nc } = yield* openLink(options, "bulk", () => {});
    const store = yield* Effect.tryPromise({
      try: async (): Promise<Store | null> => {
        try {
          return await new Objm(jetstream(nc, jetStreamIn(options.jsDomain, OPERATION_TIMEOUT_MS))).open(bucket);
        } catch (error) {
          if (error instanceof Error && /not found/.test(error.message)) return null;
          throw error;
        }
      },
      catch: (cause) => refail(`open object store ${bucket}`, cause, nc, options.jsDomain),
    });
    if (store === null) return yield* missing(bucket);
    const attempt = <A>(what: string, work: () => Promise<A>): Effect.Effect<A, FabricError> =>
      Effect.tryPromise({
        try: work,
        catch: (cause) => {
          const operation = `${what} in object store ${bucket}`;
          // JetStream's words for a stream at its max_bytes, or a server at its max_file_store.
          if (
            cause instanceof Error &&
            /maximum bytes exceeded|insufficient resources|insufficient storage/.test(cause.message)
          )
            return new FabricError({ code: "no-space", operation, reason: cause.message, retryable: false });
          return refail(operation, cause, nc, options.jsDomain);
        },
      }).pipe(
        Effect.timeoutOrElse({
          duration: TRANSFER_TIMEOUT_MS,
          orElse: () =>
            Effect.fail(
              new FabricError({
                code: "failed",
                operation: `${what} in object store ${bucket}`,
                reason: `not done within ${TRANSFER_TIMEOUT_MS} ms`,
                retryable: true,
              }),
            ),
        }),
      );
    return {
      info: (name) =>
        Effect.map(
          attempt(`look for ${name}`, () => store.info(name)),
          (found) => (found === null || found.deleted ? null : { name, bytes: found.size, digest: found.digest }),
        ),
      put: (name, content) =>
        Effect.asVoid(
          attempt(`put ${name}`, () => store.putBlob({ name }, content, { timeout: OPERATION_TIMEOUT_MS })),
        ),
      get: (name) => attempt(`get ${name}`, () => store.getBlob(name)),
      remove: (name) =>
        Effect.asVoid(
          attempt(`remove ${name}`, async () => {
            const found = await store.info(name);
            if (found !== null && !found.deleted) await store.delete(name);
          }),
        ),
      list: Effect.map(
        attempt("list", () => store.list()),
        (all) => all.filter(({ deleted }) => !deleted).map(({ name, size, digest }) => ({ name, bytes: size, digest })),
      ),
    };
  });

/** What NATS's admin does: makes the store, in a cluster with three replicas. One that is there is left as it is. */
export const setUpObjectStore = (options: NatsOptions, bucket: string): Effect.Effect<"made" | "kept", FabricError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { nc } = yield* openLink(options, "control", () => {});
      const operation = `make object store ${bucket}`;
      return yield* Effect.tryPromise({
        try: async (): Promise<"made" | "kept"> => {
          const stores = new Objm(jetstream(nc, jetStreamIn(options.jsDomain, OPERATION_TIMEOUT_MS)));
          try {
            await stores.open(bucket);
            return "kept";
          } catch (error) {
            if (!(error instanceof Error && /not found/.test(error.message))) throw error;
          }
          const make = (replicas: number) => stores.create(bucket, { storage: StorageType.File, replicas });
          const clustered = await withoutCode(NOT_CLUSTERED, () => make(REPLICAS_OF_A_CLUSTER));
          if (clustered === undefined) await make(1);
          return "made";
        },
        catch: (cause) =>
          hasCode(cause, NO_SUITABLE_PEERS)
            ? new FabricError({ code: "nats-cluster-too-small", operation, reason: String(cause), retryable: true })
            : refail(operation, cause, nc, options.jsDomain),
      });
    }),
  );
