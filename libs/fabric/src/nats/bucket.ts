import { JetStreamApiError, type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { headers, type NatsConnection, PermissionViolationError, RequestError } from "@nats-io/nats-core";
import * as Effect from "effect/Effect";
import { FabricError } from "../errors.ts";
import type { Bucket, BucketEntry, CasOutcome } from "../fabric.ts";
import { isToken } from "../subject.ts";

/** How long one operation waits, ms; a write to disk takes about one. While a leader is elected (4 to 7 s) callers try again. */
const OPERATION_TIMEOUT_MS = 1_000;
/** Values a key keeps, for those who look into what has happened; NATS allows no more. */
const HISTORY_KEPT = 64;
/** Records are small; a large one is a bug. */
const VALUE_BYTES_MAX = 65_536;

/** Codes of the JetStream API. */
const STREAM_NOT_FOUND = 10_059;
const STREAM_NAME_IN_USE = 10_058;
const WRONG_LAST_SEQUENCE = 10_071;
/** Another write of the same key is under way: ours was not done. Newer servers only. */
const WRITE_IN_FLIGHT = 10_164;
const NOT_CLUSTERED = 10_074;

/** Servers that hold a copy, where there is a cluster: the smallest number that survives the loss of one. */
const REPLICAS = 3;

/**
 * A JetStream key-value bucket (`nats kv` shows it), used without what is unsafe for ownership: reads go to the leader, nothing
 * expires, keys cannot be deleted. Created when there is none: with three replicas in a cluster, one without.
 */
export const openBucket = (nc: NatsConnection, name: string): Effect.Effect<Bucket, FabricError> => {
  const operation = `open bucket ${name}`;
  return Effect.tryPromise({
    try: async () => {
      if (!isToken(name)) throw new Error(`${JSON.stringify(name)} is not 1 to 64 of A-Z a-z 0-9 _ -`);
      const clustered = nc.info?.cluster !== undefined;
      const manager = await jetstreamManager(nc, { timeout: OPERATION_TIMEOUT_MS });
      await ensureStream(manager, name, clustered);
      return makeBucket(nc, manager, name);
    },
    catch: (cause) =>
      isNotEnabled(cause, nc)
        ? new FabricError({
            code: "nats-no-jetstream",
            operation,
            reason: `${nc.getServer()} offers no JetStream`,
            retryable: false,
          })
        : refail(operation, cause),
  });
};

/**
 * A server without JetStream, or an account without it, as against a leader that is away: the client reports both as
 * "not enabled", with an error class that it does not export. Only the first is for good.
 */
function isNotEnabled(cause: unknown, nc: NatsConnection): boolean {
  if (!(cause instanceof Error) || cause.name !== "JetStreamNotEnabled") return false;
  return cause.cause instanceof JetStreamApiError || nc.info?.jetstream !== true;
}

function makeBucket(nc: NatsConnection, manager: JetStreamManager, name: string): Bucket {
  const stream = streamOf(name);
  const prefix = `$KV.${name}.`;
  return {
    get: (key) =>
      Effect.tryPromise({
        try: async (): Promise<BucketEntry | null> => {
          const stored = await manager.streams.getMessage(stream, { last_by_subj: prefix + checkedKey(key) });
          // A deletion by an operator's tool leaves a marker.
          if (stored === null || stored.header.get("KV-Operation") !== "") return null;
          return { value: stored.data, revision: stored.seq };
        },
        catch: (cause) => refail(`read ${key} of bucket ${name}`, cause),
      }),
    keys: Effect.tryPromise({
      try: async () => {
        const info = await manager.streams.info(stream, { subjects_filter: `${prefix}>` });
        return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length));
      },
      catch: (cause) => refail(`list bucket ${name}`, cause),
    }),
    compareAndSet: (key, value, revision) =>
      Effect.promise(() => compareAndSet(nc, stream, prefix + checkedKey(key), value, revision)),
  };
}

/**
 * One request, never repeated: a second one could lose against the first. The revision in `Won` is that of this very write,
 * from its own acknowledgement.
 */
async function compareAndSet(
  nc: NatsConnection,
  stream: string,
  subject: string,
  value: Uint8Array,
  revision: number,
): Promise<CasOutcome> {
  const expected = headers();
  expected.set("Nats-Expected-Stream", stream);
  expected.set("Nats-Expected-Last-Subject-Sequence", String(revision));
  try {
    const reply = await nc.request(subject, value, { timeout: OPERATION_TIMEOUT_MS, headers: expected });
    return outcomeOf(reply.json());
  } catch (error) {
    return { _tag: "Unknown", reason: error instanceof Error ? error.message : String(error) };
  }
}

function outcomeOf(acknowledgement: unknown): CasOutcome {
  const { error, seq } = acknowledgement as { error?: { err_code?: number; description?: string }; seq?: number };
  if (error === undefined && typeof seq === "number" && seq > 0) return { _tag: "Won", revision: seq };
  if (error?.err_code === WRONG_LAST_SEQUENCE || error?.err_code === WRITE_IN_FLIGHT) return { _tag: "Lost" };
  return { _tag: "Unknown", reason: error?.description ?? "the acknowledgement names no sequence" };
}

/** Finds or creates the stream behind the bucket, and refuses one in which records could vanish by themselves. */
async function ensureStream(manager: JetStreamManager, name: string, clustered: boolean): Promise<void> {
  const stream = streamOf(name);
  const found = await withoutCode(STREAM_NOT_FOUND, () => manager.streams.info(stream));
  const { config } = found ?? (await create(manager, name, clustered));
  if (config.max_age !== 0) throw new Error("its entries expire: make it without a TTL");
  if (config.mirror !== undefined || (config.sources ?? []).length > 0)
    throw new Error("it is a copy of another stream");
}

async function create(manager: JetStreamManager, name: string, clustered: boolean) {
  const stream = streamOf(name);
  const add = (replicas: number) =>
    manager.streams.add({
      name: stream,
      subjects: [`$KV.${name}.>`],
      max_msgs_per_subject: HISTORY_KEPT,
      max_msg_size: VALUE_BYTES_MAX,
      num_replicas: replicas,
      discard: "new",
      allow_direct: false,
      allow_rollup_hdrs: false,
      deny_delete: true,
      deny_purge: true,
    });
  const withReplicas = (replicas: number) =>
    withoutCode(STREAM_NAME_IN_USE, () => add(replicas)).then(
      // Somebody else created it meanwhile, otherwise configured.
      (created) => created ?? manager.streams.info(stream),
    );
  if (!clustered) return withReplicas(1);
  return (await withoutCode(NOT_CLUSTERED, () => withReplicas(REPLICAS))) ?? withReplicas(1);
}

/** What `ask` gives, or undefined when JetStream answers with `code`. */
async function withoutCode<A>(code: number, ask: () => Promise<A>): Promise<A | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === code) return undefined;
    throw error;
  }
}

const streamOf = (bucket: string): string => `KV_${bucket}`;

function checkedKey(key: string): string {
  // A key goes into a subject: anything else in it would reach other keys.
  if (!key.split(".").every(isToken)) throw new Error(`${JSON.stringify(key)} is not a key`);
  return key;
}

function refail(operation: string, cause: unknown): FabricError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const denied =
    cause instanceof PermissionViolationError ||
    (cause instanceof RequestError && cause.cause instanceof PermissionViolationError);
  if (denied) return new FabricError({ code: "nats-denied", operation, reason, retryable: false });
  return new FabricError({ code: "failed", operation, reason, retryable: true });
}
