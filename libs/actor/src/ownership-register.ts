import { type Bucket, Fabric, type FabricError } from "@godwit/fabric";
import { isMalformed, OWNERSHIP_BUCKET, type OwnershipEntry, OwnershipRecord, storedJson } from "@godwit/protocol";
import * as Effect from "effect/Effect";

const codec = storedJson(OwnershipRecord);

/** The ownership records of all guests, in the words of the decisions: nothing here fails, what is not known is "Unknown" (O5). */
export interface OwnershipRegister {
  readonly read: (guest: string) => Effect.Effect<OwnershipEntry | null | "Unknown">;
  readonly write: (
    guest: string,
    record: OwnershipRecord,
    revision: number,
  ) => Effect.Effect<"Unknown" | "Lost" | { readonly revision: number }>;
}

/** What decisions of either side want of the record, and what they get for it. */
export type RecordEffect =
  | { readonly _tag: "ReadRecord"; readonly op: string; readonly afterMs: number }
  | {
      readonly _tag: "WriteRecord";
      readonly record: OwnershipRecord;
      readonly revision: number;
      readonly afterMs: number;
    };
export type RecordAnswer =
  | { readonly _tag: "RecordRead"; readonly op: string; readonly entry: OwnershipEntry | null | "Unknown" }
  | {
      readonly _tag: "RecordWritten";
      readonly op: string;
      readonly outcome: "Unknown" | "Lost" | { readonly revision: number };
    };

/** Carries out an effect on a guest's record, after its pause; the answer names the operation it is for. */
export const askRecord = (
  register: OwnershipRegister,
  guest: string,
  effect: RecordEffect,
): Effect.Effect<RecordAnswer> => {
  const work =
    effect._tag === "ReadRecord"
      ? Effect.map(register.read(guest), (entry): RecordAnswer => ({ _tag: "RecordRead", op: effect.op, entry }))
      : Effect.map(
          register.write(guest, effect.record, effect.revision),
          (outcome): RecordAnswer => ({ _tag: "RecordWritten", op: effect.record.op, outcome }),
        );
  return Effect.delay(work, effect.afterMs);
};

const decode = (guest: string, value: Uint8Array): Effect.Effect<OwnershipRecord | null> => {
  const record = codec.decode(value);
  if (!isMalformed(record)) return Effect.succeed(record);
  // Not ours to repair, and not ours to guess: whoever wrote it must be found. Until then nobody may act on this guest.
  return Effect.as(Effect.logError(`the ownership record of guest ${guest} is malformed: ${record.malformed}`), null);
};

const makeRegister = (bucket: Bucket): OwnershipRegister => ({
  read: Effect.fnUntraced(
    function* (guest: string) {
      const entry = yield* bucket.get(guest);
      if (entry === null) return null;
      const record = yield* decode(guest, entry.value);
      return record === null ? ("Unknown" as const) : { record, revision: entry.revision };
    },
    Effect.catch((error) => Effect.as(Effect.logWarning(`ownership record: ${error.message}`), "Unknown" as const)),
  ),
  write: Effect.fnUntraced(function* (guest: string, record: OwnershipRecord, revision: number) {
    const outcome = yield* bucket.compareAndSet(guest, codec.encode(record), revision);
    if (outcome._tag === "Won") return { revision: outcome.revision };
    if (outcome._tag === "Unknown") yield* Effect.logWarning(`ownership record: outcome unknown: ${outcome.reason}`);
    return outcome._tag;
  }),
});

export const openOwnershipRegister: Effect.Effect<OwnershipRegister, FabricError, Fabric> = Effect.gen(function* () {
  const fabric = yield* Fabric;
  return makeRegister(yield* fabric.bucket(OWNERSHIP_BUCKET));
});
