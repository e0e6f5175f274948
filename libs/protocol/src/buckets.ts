/** The key-value buckets of godwit, and what each may hold. `godwit setup-nats` makes them; actors only open them. */

export interface BucketDefinition {
  readonly name: string;
  /** The largest write, bytes: the value and some 150 bytes of headers. */
  readonly writeBytesMax: number;
  /** Everything in it, all revisions kept of all keys, bytes. JetStream sets so much of the store's space aside. */
  readonly bytesMax: number;
  /** What a full bucket does with a write: refuses it, or drops the oldest one of all. */
  readonly whenFull: "refuse" | "forget the oldest";
}

/** Who may run each guest. */
export const OWNERSHIP_BUCKET = "godwit_ownership";
/** The migrations' state. */
export const MIGRATIONS_BUCKET = "godwit_migrations";

/**
 * A record takes about 700 bytes on the disk, and 64 revisions of it are kept: room for some 3,000 guests, and little enough to be
 * there on a small machine. Dropping the oldest would be to forget who runs a guest, so a full bucket refuses: no guest can be claimed then,
 * and none is in danger.
 */
const OWNERSHIP: BucketDefinition = {
  name: OWNERSHIP_BUCKET,
  writeBytesMax: 4096,
  bytesMax: 128 * 1024 ** 2,
  whenFull: "refuse",
};

/**
 * A migration's state takes about 2 KiB, with 255 channels and a hundred differences at most 100. The newest thousand
 * migrations and more are kept, as a log keeps them.
 */
const MIGRATIONS: BucketDefinition = {
  name: MIGRATIONS_BUCKET,
  writeBytesMax: 128 * 1024,
  bytesMax: 128 * 1024 ** 2,
  whenFull: "forget the oldest",
};

export const BUCKETS: ReadonlyArray<BucketDefinition> = [OWNERSHIP, MIGRATIONS];

/** What a bucket of this name must be like; one that is not godwit's own is treated like the ownership records. */
export const bucketOf = (name: string): BucketDefinition =>
  BUCKETS.find((bucket) => bucket.name === name) ?? { ...OWNERSHIP, name };
