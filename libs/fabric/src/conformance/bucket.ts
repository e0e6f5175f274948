import * as Effect from "effect/Effect";
import { expect, it } from "vitest";
import type { CurrentWorld } from "../fabric.conformance.ts";
import type { CasOutcome } from "../fabric.ts";
import { bytes, text } from "./messages.ts";

/** Rounds of the contest; before nats-server 2.10 every second one had two winners in a cluster. */
const CONTESTED_ROUNDS = 200;

/** The buckets that must be there. */
export const CONFORMANCE_BUCKETS = ["cas", "shared", "other", "contest"];

const revisionOf = (outcome: CasOutcome): number => {
  if (outcome._tag !== "Won") throw new Error(`expected Won, got ${JSON.stringify(outcome)}`);
  return outcome.revision;
};

export function bucketConformance(world: CurrentWorld): void {
  it("a compare-and-set wins on the revision that is there and loses on any other", () =>
    world().run(
      Effect.gen(function* () {
        const bucket = yield* (yield* world().join("alice")).bucket("cas");
        expect(yield* bucket.get("vm1")).toBeNull();
        const first = revisionOf(yield* bucket.compareAndSet("vm1", bytes("one"), 0));
        expect(yield* bucket.compareAndSet("vm1", bytes("again"), 0)).toEqual({ _tag: "Lost" });
        const second = revisionOf(yield* bucket.compareAndSet("vm1", bytes("two"), first));
        expect(second).toBeGreaterThan(first);
        expect(yield* bucket.compareAndSet("vm1", bytes("late"), first)).toEqual({ _tag: "Lost" });
        const entry = yield* bucket.get("vm1");
        expect(entry?.revision).toBe(second);
        expect(text(entry?.value ?? bytes(""))).toBe("two");
      }),
    ));

  it("all actors see the same bucket, and its keys", () =>
    world().run(
      Effect.gen(function* () {
        const alice = yield* (yield* world().join("alice")).bucket("shared");
        const bob = yield* (yield* world().join("bob")).bucket("shared");
        expect(yield* alice.keys).toEqual([]);
        for (const key of ["vm1", "migration.7"]) yield* alice.compareAndSet(key, bytes(key), 0);
        expect([...(yield* bob.keys)].sort()).toEqual(["migration.7", "vm1"]);
        expect(text((yield* bob.get("vm1"))?.value ?? bytes(""))).toBe("vm1");
        const other = yield* (yield* world().join("bob")).bucket("other");
        expect(yield* other.get("vm1")).toBeNull();
      }),
    ));

  it("of two contenders for one revision exactly one wins, every time, and `Won` holds its own write's revision", () =>
    world().run(
      Effect.gen(function* () {
        const names = ["left", "right"];
        const buckets = yield* Effect.forEach(names, (name) =>
          Effect.flatMap(world().join(name), (fabric) => fabric.bucket("contest")),
        );
        let revision = 0;
        for (let round = 0; round < CONTESTED_ROUNDS; round++) {
          const outcomes = yield* Effect.all(
            buckets.map((bucket, i) => bucket.compareAndSet("key", bytes(`${names[i]} ${round}`), revision)),
            { concurrency: "unbounded" },
          );
          const winner = outcomes.findIndex((outcome) => outcome._tag === "Won");
          expect(outcomes.map((outcome) => outcome._tag).sort()).toEqual(["Lost", "Won"]);
          const entry = yield* (buckets[0] as (typeof buckets)[number]).get("key");
          expect(text(entry?.value ?? bytes(""))).toBe(`${names[winner]} ${round}`);
          const won = revisionOf(outcomes[winner] as CasOutcome);
          expect(won).toBe(entry?.revision);
          expect(won).toBeGreaterThan(revision);
          revision = won;
        }
      }),
    ));
}
