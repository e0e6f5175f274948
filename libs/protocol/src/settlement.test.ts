import { describe, expect, it } from "vitest";
import type { OwnershipEntry, OwnershipRecord } from "./ownership.ts";
import { type SettlementEvent, type SettlementNext, settle } from "./settlement.ts";

/** Steps of one run; each is one of up to eight things that can happen. All runs are tried. */
const DEPTH = 9;

const record = (op: string): OwnershipRecord =>
  ({ state: "source", epoch: 2, op, migration: "0", node: "a", open: true, wasRunning: true }) as OwnershipRecord;

/**
 * A linearizable register and everything between it and the writer: each copy of the write may land late, its answer may be lost, a
 * read may be stale. Others write as they like, but only by compare-and-set.
 */
interface World {
  /** What was ever in it, oldest first; the revision is the place, counted from 1. */
  readonly history: ReadonlyArray<string>;
  /** Copies of our write that are on their way and have been given up waiting for. */
  readonly late: number;
  readonly next: SettlementNext;
}

const entryAt = (history: ReadonlyArray<string>, revision: number): OwnershipEntry | null =>
  revision === 0 ? null : { record: record(history[revision - 1]!), revision };

/** Every world that one step of fate, or of the writer, leads to. */
const successors = (world: World, revision: number): World[] => {
  const { history, late, next } = world;
  const worlds: World[] = [];
  const landed = (): ReadonlyArray<string> | null => (history.length === revision ? [...history, "ours"] : null);
  const hears = (event: SettlementEvent, to: Partial<World> = {}): void => {
    worlds.push({ ...world, ...to, next: settle({ record: record("ours"), revision }, event) });
  };
  // Somebody else is faster, or comes later.
  if (history.length < revision + 3) worlds.push({ ...world, history: [...history, `other ${history.length}`] });
  // A copy that was given up for lost arrives at last.
  if (late > 0) worlds.push({ ...world, late: late - 1, history: landed() ?? history });
  if (next._tag === "Write") {
    const after = landed();
    if (after === null) hears({ _tag: "Written", op: "ours", outcome: "Lost" });
    else hears({ _tag: "Written", op: "ours", outcome: { revision: after.length } }, { history: after });
    // The answer is lost, and the write has landed, has not, or will.
    hears({ _tag: "Written", op: "ours", outcome: "Unknown" }, { history: after ?? history });
    hears({ _tag: "Written", op: "ours", outcome: "Unknown" }, { late: late + 1 });
    // A second copy of a request whose first has landed is refused.
    if (history.includes("ours")) hears({ _tag: "Written", op: "ours", outcome: "Lost" });
  }
  if (next._tag === "Read") {
    hears({ _tag: "Read", op: "ours", entry: "Unknown" });
    for (let seen = 0; seen <= history.length; seen++)
      hears({ _tag: "Read", op: "ours", entry: entryAt(history, seen) });
  }
  return worlds;
};

const explore = (revision: number, check: (world: World) => void): number => {
  const begin: World = {
    history: Array.from({ length: revision }, (_, index) => `before ${index}`),
    late: 0,
    next: { _tag: "Write", after: "at once" },
  };
  let seen = 0;
  const visit = (world: World, depth: number): void => {
    seen++;
    check(world);
    if (depth === DEPTH || world.next._tag === "Won" || world.next._tag === "Lost") return;
    for (const after of successors(world, revision)) visit(after, depth + 1);
  };
  visit(begin, 0);
  return seen;
};

describe.each([0, 1, 2])("a settled write that names revision %i, in every run of events", (revision) => {
  it("is won only when it is in the register's history, and names the revision it has there", () => {
    let won = 0;
    explore(revision, ({ next, history }) => {
      if (next._tag !== "Won") return;
      won++;
      if (history[next.revision - 1] !== "ours") throw new Error(`won at ${next.revision} of ${history.join(", ")}`);
    });
    expect(won).toBeGreaterThan(100);
  });

  it("is lost only when it is not the last word, and can never be", () => {
    let lost = 0;
    explore(revision, ({ next, history }) => {
      if (next._tag !== "Lost") return;
      lost++;
      if (history.at(-1) === "ours") throw new Error(`lost, and last of ${history.join(", ")}`);
      if (history.length <= revision) throw new Error("lost, and a late copy could still land");
      if (next.to.record.op === "ours" || next.to.revision <= revision) throw new Error("lost to nobody");
    });
    expect(lost).toBeGreaterThan(100);
  });

  it("takes effect at most once", () => {
    explore(revision, ({ history }) => {
      if (history.filter((op) => op === "ours").length > 1) throw new Error(history.join(", "));
    });
  });

  it("is asked about again as long as nothing is known", () => {
    const settlement = { record: record("ours"), revision };
    const unknown = [
      { _tag: "Written", op: "ours", outcome: "Unknown" },
      { _tag: "Read", op: "ours", entry: "Unknown" },
      { _tag: "Read", op: "ours", entry: null },
      ...(revision === 0 ? [] : [{ _tag: "Read", op: "ours", entry: { record: record("before"), revision } } as const]),
    ] as const;
    for (const event of unknown) expect(["Write", "Read"]).toContain(settle(settlement, event as SettlementEvent)._tag);
  });
});
