/** Where migrations are kept: the migrations bucket, so that any coordinator can show them and take them over. */
import { type Bucket, Fabric, type FabricError } from "@godwit/fabric";
import { FailureSchema, isMalformed, MIGRATIONS_BUCKET, MigrationInfo, Parameters, storedJson } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import type { SavedMigration, StoredMigration } from "./decisions/index.ts";

const Saved = Schema.Struct({
  term: Schema.Int,
  owner: Schema.String,
  attempt: Schema.Int,
  epoch: Schema.Int,
  startedAt: Schema.Number,
  parameters: Parameters,
  continuedAttempt: Schema.NullOr(Schema.Int),
  /** Absent from what versions without postcopy have saved. */
  postcopyWanted: Schema.optionalKey(Schema.Boolean),
  givenUp: Schema.optionalKey(Schema.Boolean),
  word: Schema.optionalKey(
    Schema.NullOr(Schema.Struct({ number: Schema.Natural, word: Schema.Literals(["Pause", "Recover"]) })),
  ),
  undoing: Schema.NullOr(Schema.Literals(["retry", "failed", "cancelled"])),
  capabilities: Schema.Record(Schema.String, Schema.Boolean),
  failure: Schema.NullOr(FailureSchema),
  info: MigrationInfo,
});
const codec = storedJson(Saved);

export interface Store {
  /** Fails when any of them cannot be read; one that is malformed is logged and left out. */
  readonly list: Effect.Effect<ReadonlyArray<StoredMigration>, FabricError>;
  readonly read: (migration: string) => Effect.Effect<StoredMigration | null, FabricError>;
  readonly write: (
    saved: SavedMigration,
    revision: number,
  ) => Effect.Effect<"Unknown" | "Lost" | { readonly revision: number }>;
}

const makeStore = (bucket: Bucket): Store => {
  const read: Store["read"] = Effect.fnUntraced(function* (migration) {
    const entry = yield* bucket.get(migration);
    if (entry === null) return null;
    const saved = codec.decode(entry.value);
    if (!isMalformed(saved)) return { saved: saved as SavedMigration, revision: entry.revision };
    yield* Effect.logError(`migration ${migration} is malformed in its bucket: ${saved.malformed}`);
    return null;
  });
  return {
    read,
    list: bucket.keys.pipe(
      Effect.flatMap((keys) => Effect.forEach(keys, read, { concurrency: 8 })),
      Effect.map((all) => all.filter((stored) => stored !== null)),
    ),
    write: Effect.fnUntraced(function* (saved, revision) {
      const outcome = yield* bucket.compareAndSet(saved.info.migration, codec.encode(saved as never), revision);
      if (outcome._tag === "Won") return { revision: outcome.revision };
      if (outcome._tag === "Unknown") yield* Effect.logWarning(`migrations bucket: outcome unknown: ${outcome.reason}`);
      return outcome._tag;
    }),
  };
};

export const openStore = Effect.gen(function* () {
  const fabric = yield* Fabric;
  return makeStore(yield* fabric.bucket(MIGRATIONS_BUCKET));
});
