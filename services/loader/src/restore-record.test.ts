import { assert, describe, it } from "@effect/vitest";
import type { OwnershipRegister } from "@godwit/actor";
import type { Incarnation, OwnershipEntry, OwnershipRecord, RestoreRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { isOurs } from "./restore-record.ts";

const ASKED = { id: "0123456789abcdef", guest: "vm1", stop: false } as RestoreRequest;
const SETTINGS = { node: "b", incarnation: "b".repeat(16) as Incarnation };

const record = (of: Partial<OwnershipRecord>): OwnershipRecord =>
  ({
    state: "source",
    epoch: 4,
    op: "claim",
    migration: "fedcba9876543210",
    node: "a",
    open: false,
    wasRunning: true,
    ...of,
  }) as OwnershipRecord;
const ours = record({ state: "destination", epoch: 5 as never, migration: ASKED.id, node: "b", open: true });

/** What a bucket does: a write at another revision than the present one is lost. `stale`: what the first read shows. */
const makeRegister = (first: OwnershipRecord | null, stale: OwnershipEntry | null | "Unknown" | "fresh" = "fresh") => {
  let entry: OwnershipEntry | null = first === null ? null : { record: first, revision: 7 };
  let reads = 0;
  const register: OwnershipRegister = {
    read: () => Effect.sync(() => (reads++ === 0 && stale !== "fresh" ? stale : entry)),
    write: (_, next, revision) =>
      Effect.sync(() => {
        if (revision !== (entry?.revision ?? 0)) return "Lost";
        entry = { record: next, revision: revision + 1 };
        return { revision: revision + 1 };
      }),
  };
  return { register, entry: () => entry };
};

describe("a restore whose loader has died", () => {
  it.live("had won the record when the record says so, however late that is seen", () =>
    Effect.gen(function* () {
      for (const stale of ["fresh", "Unknown", { record: record({}), revision: 6 }] as const) {
        const { register, entry } = makeRegister(ours, stale);
        assert.isTrue(yield* isOurs(ASKED, 5, SETTINGS, register));
        assert.deepStrictEqual(entry()?.record, ours);
      }
    }),
  );

  it.live("had not, and cannot win it any more once that was said", () =>
    Effect.gen(function* () {
      for (const before of [record({}), null]) {
        const { register, entry } = makeRegister(before);
        const late = before === null ? 0 : 7;
        assert.isFalse(yield* isOurs(ASKED, before === null ? 1 : 5, SETTINGS, register));
        assert.strictEqual(yield* register.write("vm1", ours, late), "Lost");
        assert.deepInclude(entry()?.record, { state: "source", open: false, node: before === null ? "b" : "a" });
      }
    }),
  );

  it.live("has no say once a later attempt has claimed the guest, whose record stays as it is", () =>
    Effect.gen(function* () {
      const claimed = record({ epoch: 5 as never, open: true });
      const { register, entry } = makeRegister(claimed);
      assert.isFalse(yield* isOurs(ASKED, 5, SETTINGS, register));
      assert.strictEqual(entry()?.record, claimed);
    }),
  );
});
