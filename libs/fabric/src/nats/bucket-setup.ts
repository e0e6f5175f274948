/** What NATS's admin does with buckets: makes them, corrects them, looks at them. Actors do none of it. */
import type { BucketDefinition } from "@godwit/protocol";
import { JetStreamApiError, type JetStreamManager, jetstreamManager, type StreamInfo } from "@nats-io/jetstream";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import { FabricError } from "../errors.ts";
import {
  configurationOf,
  correctionsOf,
  isClustered,
  type Mismatch,
  mismatchesOf,
  streamOf,
  valuesOf,
} from "./bucket-configuration.ts";
import { type NatsOptions, openLink } from "./connection.ts";
import { jetStreamIn } from "./jetstream-domain.ts";
import {
  hasCode,
  INSUFFICIENT_STORAGE,
  NO_SUITABLE_PEERS,
  NOT_CLUSTERED,
  refail,
  STREAM_NAME_IN_USE,
  STREAM_NOT_FOUND,
  UNAVAILABLE,
  withoutCode,
} from "./jetstream-failure.ts";

/** How long one operation may take, ms: a cluster elects a leader for each new stream, on a busy machine in some seconds. */
const OPERATION_TIMEOUT_MS = 2_000;
/** A cluster that has just been started needs some seconds to find its servers and a leader: setting up goes on for 10 s at least. */
const SET_UP_AGAIN = Schedule.spaced("500 millis").pipe(Schedule.upTo({ times: 20 }));

/** A server of a cluster that holds a copy. */
export interface BucketCopy {
  readonly server: string;
  readonly state: "leads" | "current" | "behind" | "offline";
}

/** A bucket as it is. */
export interface BucketReading {
  readonly bucket: string;
  /** The values of the stream's configuration that count, by JetStream's names. */
  readonly configuration: Readonly<Record<string, unknown>>;
  readonly mismatches: ReadonlyArray<Mismatch>;
  /** Empty without a cluster. */
  readonly copies: ReadonlyArray<BucketCopy>;
  readonly keys: number;
  readonly usedBytes: number;
}

/** What became of a bucket; `reading` is how it is now. */
export interface BucketSetup {
  readonly bucket: string;
  readonly done: "made" | "corrected" | "kept";
  /** What was corrected: as it was found. */
  readonly corrected: ReadonlyArray<Mismatch>;
  /** JetStream's words, when it refused the correction. */
  readonly refusal?: string;
  readonly reading: BucketReading;
}

/**
 * Makes the buckets that are not there, and corrects those that are not as they must be, as far as JetStream lets it; what it
 * does not is in the reading's mismatches. In a cluster with three replicas. Done twice it changes nothing the second time.
 */
export const setUpBuckets = (
  options: NatsOptions,
  buckets: ReadonlyArray<BucketDefinition>,
): Effect.Effect<ReadonlyArray<BucketSetup>, FabricError> =>
  eachBucket(
    options,
    buckets,
    { verb: "set up", again: SET_UP_AGAIN },
    async (manager, bucket): Promise<BucketSetup> => {
      const found = await infoOf(manager, bucket);
      if (found === undefined) {
        const made = await make(manager, bucket);
        return { bucket: bucket.name, done: "made", corrected: [], reading: readingOf(made, bucket) };
      }
      return correct(manager, bucket, found);
    },
  );

/** Looks at the buckets; null: there is none of that name. */
export const readBuckets = (
  options: NatsOptions,
  buckets: ReadonlyArray<BucketDefinition>,
): Effect.Effect<ReadonlyArray<BucketReading | null>, FabricError> =>
  eachBucket(options, buckets, { verb: "look at" }, async (manager, bucket) => {
    const found = await infoOf(manager, bucket);
    return found === undefined ? null : readingOf(found, bucket);
  });

/** One after the other, on a connection of its own. */
const eachBucket = <A>(
  options: NatsOptions,
  buckets: ReadonlyArray<BucketDefinition>,
  { verb, again = Schedule.recurs(0) }: { readonly verb: string; readonly again?: Schedule.Schedule<unknown> },
  work: (manager: JetStreamManager, bucket: BucketDefinition) => Promise<A>,
): Effect.Effect<ReadonlyArray<A>, FabricError> =>
  Effect.gen(function* () {
    const { nc } = yield* openLink(options, "control", () => {});
    return yield* Effect.forEach(buckets, (bucket) => {
      const operation = `${verb} bucket ${bucket.name}`;
      return Effect.tryPromise({
        try: async () => work(await jetstreamManager(nc, jetStreamIn(options.jsDomain, OPERATION_TIMEOUT_MS)), bucket),
        catch: (cause) => refail(operation, cause, nc, options.jsDomain),
      }).pipe(Effect.retry({ schedule: again, while: ({ retryable }) => retryable }));
    });
  }).pipe(Effect.scoped);

const infoOf = (manager: JetStreamManager, bucket: BucketDefinition): Promise<StreamInfo | undefined> =>
  withoutCode(STREAM_NOT_FOUND, () => manager.streams.info(streamOf(bucket.name)));

/** Whether there is a cluster is asked by trying: clients are not told how many servers JetStream has. */
async function make(manager: JetStreamManager, bucket: BucketDefinition): Promise<StreamInfo> {
  const add = (clustered: boolean) => manager.streams.add(configurationOf(bucket, clustered) as never);
  const made = await withoutCode(STREAM_NAME_IN_USE, async () => {
    try {
      return (await withoutCode(NOT_CLUSTERED, () => add(true))) ?? (await add(false));
    } catch (error) {
      if (hasCode(error, NO_SUITABLE_PEERS)) throw tooSmall(bucket, error);
      if (hasCode(error, INSUFFICIENT_STORAGE)) throw noSpace(bucket);
      throw error;
    }
  });
  // Or somebody else made it meanwhile.
  return made ?? manager.streams.info(streamOf(bucket.name));
}

async function correct(manager: JetStreamManager, bucket: BucketDefinition, found: StreamInfo): Promise<BucketSetup> {
  const clustered = isClustered(found);
  const before = mismatchesOf(found.config, bucket, clustered);
  const corrections = correctionsOf(found.config, bucket, clustered);
  const kept = { bucket: bucket.name, done: "kept", corrected: [], reading: readingOf(found, bucket) } as const;
  if (Object.keys(corrections).length === 0) return kept;
  try {
    await manager.streams.update(streamOf(bucket.name), corrections);
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code !== UNAVAILABLE) return { ...kept, refusal: error.message };
    throw error;
  }
  const reading = readingOf(await manager.streams.info(streamOf(bucket.name)), bucket);
  const left = new Set(reading.mismatches.map(({ what }) => what));
  return {
    bucket: bucket.name,
    done: "corrected",
    corrected: before.filter(({ what }) => !left.has(what)),
    reading,
  };
}

/** With fewer copies the loss of one server could be the loss of the records. */
const tooSmall = ({ name }: BucketDefinition, cause: unknown): FabricError =>
  new FabricError({
    code: "nats-cluster-too-small",
    operation: `make bucket ${name}`,
    reason: `in this cluster JetStream finds no three servers for it: ${cause instanceof Error ? cause.message : cause}`,
    // A cluster that has just been started grows.
    retryable: true,
  });

const noSpace = ({ name, bytesMax }: BucketDefinition): FabricError =>
  new FabricError({
    code: "no-space",
    operation: `make bucket ${name}`,
    reason: `JetStream cannot set ${bytesMax} bytes aside for it in nats-server's store_dir (max_file_store, or the disk)`,
    retryable: false,
  });

function readingOf(info: StreamInfo, bucket: BucketDefinition): BucketReading {
  const { config, state } = info;
  return {
    bucket: bucket.name,
    configuration: valuesOf(config, bucket),
    mismatches: mismatchesOf(config, bucket, isClustered(info)),
    copies: isClustered(info) ? copiesOf(info) : [],
    keys: state.num_subjects ?? 0,
    usedBytes: state.bytes,
  };
}

const copiesOf = ({ cluster }: StreamInfo): ReadonlyArray<BucketCopy> => [
  ...(cluster?.leader ? [{ server: cluster.leader, state: "leads" } as const] : []),
  ...(cluster?.replicas ?? []).map(
    ({ name, offline, current }): BucketCopy => ({
      server: name,
      state: offline === true ? "offline" : current ? "current" : "behind",
    }),
  ),
];
