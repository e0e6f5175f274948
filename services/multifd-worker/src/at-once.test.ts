import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { makeAtOnce } from "./at-once.ts";

const make = (waitingMax = 100) => {
  const done: number[] = [];
  const atOnce = makeAtOnce<number>({ perTurn: 3, waitingMax }, (item) => void done.push(item));
  return { done, atOnce };
};

describe("work that somebody waits for", () => {
  it("is done before its arrival returns", () => {
    const { done, atOnce } = make();
    atOnce.take(7);
    expect(done).toEqual([7]);
  });

  it("is so much in a turn, and waits for the next turn when there is more, in order", async () => {
    const { done, atOnce } = make();
    for (let item = 0; item < 7; item++) atOnce.take(item);
    expect(done).toEqual([0, 1, 2]);
    await nextTurn();
    expect(done).toEqual([0, 1, 2, 3, 4, 5]);
    // What waits comes before what arrives, which would have its place.
    atOnce.take(7);
    await nextTurn();
    expect(done.slice(6)).toEqual([6, 7]);
    await nextTurn();
    atOnce.take(8);
    expect(done.at(-1)).toBe(8);
  });

  it("is dropped when too much waits", async () => {
    const { done, atOnce } = make(2);
    for (let item = 0; item < 9; item++) atOnce.take(item);
    for (let turn = 0; turn < 4; turn++) await nextTurn();
    expect(done).toEqual([0, 1, 2, 3, 4]);
  });

  it("is not done once it was stopped", async () => {
    const { done, atOnce } = make();
    for (let item = 0; item < 5; item++) atOnce.take(item);
    atOnce.stop();
    await nextTurn();
    expect(done).toHaveLength(3);
  });
});
