/** Where migrations are kept: the migrations bucket, so that any coordinator can show them and take them over. */
import { type Bucket, Fabric } from "@godwit/fabric";
import { FailureSchema, isMalformed, json, MIGRATIONS_BUCKET, MigrationInfo, Parameters } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import type { SavedMigration } from "./decisions/index.ts";

const Saved = Schema.Struct({
  term: Schema.Int,
  owner: Schema.String,
  attempt: Schema.Int,
  startedAt: Schema.Number,
  parameters: Parameters,
  capabilities: Schema.Record(Schema.String, Schema.Boolean),
  failure: Schema.NullOr(FailureSchema),
  info: MigrationInfo,
});
const codec = json(Saved);

export interface StoredMigration {
  readonly saved: SavedMigration;
  readonly revision: number;
}

export interface Store {
  readonly list: Effect.Effect<ReadonlyArray<StoredMigration>>;
  readonly read: (migration: string) => Effect.Effect<StoredMigration | null>;
  /** The new revision, or null when another coordinator has written since, or it is not known. */
  readonly write: (saved: SavedMigration, revision: number) => Effect.Effect<number | null>;
}

const makeStore = (bucket: Bucket): Store => {
  const read = Effect.fnUntraced(
    function* (migration: string) {
      const entry = yield* bucket.get(migration);
      if (entry === null) return null;
      const saved = codec.decode(entry.value);
      if (!isMalformed(saved)) return { saved: saved as SavedMigration, revision: entry.revision };
      yield* Effect.logError(`migration ${migration} is malformed in its bucket: ${saved.malformed}`);
      return null;
    },
    Effect.catch((error) => Effect.as(Effect.logWarning(`migrations bucket: ${error.message}`), null)),
  );
  return {
    read,
    list: bucket.keys.pipe(
      Effect.flatMap((keys) => Effect.forEach(keys, read, { concurrency: 8 })),
      Effect.map((all) => all.filter((stored) => stored !== null)),
      Effect.catch((error) => Effect.as(Effect.logWarning(`migrations bucket: ${error.message}`), [])),
    ),
    write: (saved, revision) =>
      Effect.map(bucket.compareAndSet(saved.info.migration, codec.encode(saved as never), revision), (outcome) =>
        outcome._tag === "Won" ? outcome.revision : null,
      ),
  };
};

export const openStore = Effect.gen(function* () {
  const fabric = yield* Fabric;
  return makeStore(yield* fabric.bucket(MIGRATIONS_BUCKET));
});
