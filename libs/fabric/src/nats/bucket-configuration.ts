/**
 * What the stream behind a bucket must be like, so that a record can neither vanish nor be read stale: the one table that making,
 * correcting and opening a bucket go by. Values have JetStream's own names.
 */
import type { BucketDefinition } from "@godwit/protocol";
import type { StreamConfig, StreamInfo } from "@nats-io/jetstream";

/** Values a key keeps, for those who look into what has happened; NATS allows no more. */
const HISTORY_KEPT = 64;
/** Servers that hold a copy, where there is a cluster: the smallest number that survives the loss of one. */
const REPLICAS = 3;

export const streamOf = (bucket: string): string => `KV_${bucket}`;

/** Whether the stream's servers form a cluster: a single server names itself as leader, and no cluster. */
export const isClustered = ({ cluster }: Pick<StreamInfo, "cluster">): boolean => cluster?.name !== undefined;

/** A value that is not what it must be. `fixed`: JetStream changes it in no stream that is there. */
export interface Mismatch {
  readonly what: string;
  readonly required: string;
  readonly found: string;
  readonly fixed: boolean;
}

interface Requirement {
  readonly what: string;
  /** What it is set to; undefined: left out. */
  readonly value: unknown;
  readonly required: string;
  readonly fits: (found: unknown) => boolean;
  readonly fixed: boolean;
}

const shown = (value: unknown): string => (value === undefined ? "none" : JSON.stringify(value));
const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

const exactly = (what: string, value: unknown, fixed = false): Requirement => ({
  what,
  value,
  required: shown(value),
  // Servers leave out what is off.
  fits: (found) => same(found ?? false, value),
  fixed,
});
const atLeast = (what: string, value: number): Requirement => ({
  what,
  value,
  required: `${value} or more`,
  fits: (found) => typeof found === "number" && found >= value,
  fixed: false,
});
const none = (what: string, fixed = false): Requirement => ({
  what,
  value: undefined,
  required: "none",
  fits: (found) => found === undefined || same(found, []),
  fixed,
});

const requirementsOf = (bucket: BucketDefinition, clustered: boolean): ReadonlyArray<Requirement> => [
  exactly("subjects", [`$KV.${bucket.name}.>`]),
  exactly("storage", "file", true),
  atLeast("num_replicas", clustered ? REPLICAS : 1),
  // Nothing leaves but by a newer value of its key, or, where that is wanted, when the bucket is full.
  exactly("retention", "limits", true),
  exactly("max_msgs_per_subject", HISTORY_KEPT),
  exactly("max_msgs", -1),
  atLeast("max_bytes", bucket.bytesMax),
  exactly("max_msg_size", bucket.writeBytesMax),
  exactly("discard", bucket.whenFull === "refuse" ? "new" : "old"),
  // Else a key whose history is full could never be written again.
  exactly("discard_new_per_subject", false),
  exactly("max_age", 0),
  exactly("allow_msg_ttl", false, true),
  exactly("deny_delete", true),
  exactly("deny_purge", true),
  exactly("allow_rollup_hdrs", false),
  // A direct get asks any copy, and is stale where that lags behind (4 to 23 % of reads after writes).
  exactly("allow_direct", false),
  // An acknowledgement is a promise; and what is acknowledged has been handed to the file system.
  exactly("no_ack", false),
  {
    ...exactly("persist_mode", "default", true),
    value: undefined,
    fits: (found) => (found ?? "default") === "default",
  },
  exactly("sealed", false, true),
  none("mirror", true),
  none("sources"),
  none("subject_transform"),
];

const valueIn = (config: StreamConfig, what: string): unknown => (config as unknown as Record<string, unknown>)[what];

/** A new stream's configuration. */
export const configurationOf = (bucket: BucketDefinition, clustered: boolean) => ({
  name: streamOf(bucket.name),
  ...Object.fromEntries(
    requirementsOf(bucket, clustered)
      .filter(({ value }) => value !== undefined)
      .map(({ what, value }) => [what, value]),
  ),
});

/** Everything in which a stream is not what the bucket needs. */
export const mismatchesOf = (
  config: StreamConfig,
  bucket: BucketDefinition,
  clustered: boolean,
): ReadonlyArray<Mismatch> =>
  requirementsOf(bucket, clustered)
    .filter(({ what, fits }) => !fits(valueIn(config, what)))
    .map(({ what, required, fixed }) => ({ what, required, found: shown(valueIn(config, what)), fixed }));

/** What to change in a stream, as far as that is possible: undefined takes a value away. */
export const correctionsOf = (
  config: StreamConfig,
  bucket: BucketDefinition,
  clustered: boolean,
): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    requirementsOf(bucket, clustered)
      .filter(({ what, fits, fixed }) => !fixed && !fits(valueIn(config, what)))
      .map(({ what, value }) => [what, value]),
  );

/** The values that count, as they are. */
export const valuesOf = (config: StreamConfig, bucket: BucketDefinition): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    requirementsOf(bucket, true)
      .map(({ what }) => [what, valueIn(config, what)] as const)
      .filter(([, value]) => value !== undefined),
  );

export const mismatchText = ({ what, found, required }: Mismatch): string => `${what} is ${found}, not ${required}`;
