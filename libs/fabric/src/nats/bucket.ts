import { bucketOf } from "@godwit/protocol";
import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { headers, type NatsConnection } from "@nats-io/nats-core";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import { FabricError } from "../errors.ts";
import type { Bucket, BucketEntry, CasOutcome } from "../fabric.ts";
import { isToken } from "../subject.ts";
import { isClustered, mismatchesOf, mismatchText, streamOf } from "./bucket-configuration.ts";
import { jetStreamIn, viaDomain } from "./jetstream-domain.ts";
import { refail, STREAM_NOT_FOUND, withoutCode } from "./jetstream-failure.ts";

/** How long one operation waits, ms; a write to disk takes about one. While a leader is elected (4 to 7 s) callers try again. */
export const OPERATION_TIMEOUT_MS = 1_000;

/** Codes of the JetStream API. */
const WRONG_LAST_SEQUENCE = 10_071;
/** Another write of the same key is under way: ours was not done. Newer servers only. */
const WRITE_IN_FLIGHT = 10_164;

/** Opening goes on for 10 s at least: an actor that starts while a leader is elected need not fail. */
const OPEN_AGAIN = Schedule.spaced("500 millis").pipe(Schedule.upTo({ times: 20 }));

/**
 * A JetStream key-value bucket (`nats kv` shows it), used without what is unsafe for ownership: reads go to the leader, nothing
 * expires, keys cannot be deleted. It is never made here, and one that is configured otherwise is refused.
 */
export const openBucket = (nc: NatsConnection, name: string, domain?: string): Effect.Effect<Bucket, FabricError> => {
  const operation = `open bucket ${name}`;
  return Effect.tryPromise({
    try: async () => {
      if (!isToken(name))
        throw refusal("failed", operation, `${JSON.stringify(name)} is not 1 to 64 of A-Z a-z 0-9 _ -`);
      const manager = await jetstreamManager(nc, jetStreamIn(domain, OPERATION_TIMEOUT_MS));
      await checkStream(manager, name, operation);
      return makeBucket(nc, manager, name, domain);
    },
    catch: (cause) => refail(operation, cause, nc, domain),
  }).pipe(Effect.retry({ schedule: OPEN_AGAIN, while: ({ retryable }) => retryable }));
};

const refusal = (code: FabricError["code"], operation: string, reason: string): FabricError =>
  new FabricError({ code, operation, reason, retryable: false });

/** Reads the configuration back from the leader, and refuses what could lose a record or show an old one. */
async function checkStream(manager: JetStreamManager, name: string, operation: string): Promise<void> {
  const found = await withoutCode(STREAM_NOT_FOUND, () => manager.streams.info(streamOf(name)));
  if (found === undefined) throw refusal("bucket-missing", operation, `there is no stream ${streamOf(name)}`);
  const wrong = mismatchesOf(found.config, bucketOf(name), isClustered(found));
  if (wrong.length > 0) throw refusal("bucket-unsafe", operation, wrong.map(mismatchText).join("; "));
}

function makeBucket(nc: NatsConnection, manager: JetStreamManager, name: string, domain?: string): Bucket {
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
        catch: (cause) => refail(`read ${key} of bucket ${name}`, cause, nc, domain),
      }),
    keys: Effect.tryPromise({
      try: async () => {
        const info = await manager.streams.info(stream, { subjects_filter: `${prefix}>` });
        return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length));
      },
      catch: (cause) => refail(`list bucket ${name}`, cause, nc, domain),
    }),
    compareAndSet: (key, value, revision) =>
      Effect.promise(() => compareAndSet(nc, stream, viaDomain(domain, prefix + checkedKey(key)), value, revision)),
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

function checkedKey(key: string): string {
  // A key goes into a subject: anything else in it would reach other keys.
  if (!key.split(".").every(isToken)) throw new Error(`${JSON.stringify(key)} is not a key`);
  return key;
}
