import { setImmediate as nextTurn } from "node:timers/promises";
import { PACKET_PAGES_MAX } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { batchRuns, type Patience } from "./run-batches.ts";

const gather = (patience: Patience) => {
  const batches: Array<readonly [number, ...number[]]> = [];
  return { batches, ...batchRuns((block, runs) => batches.push([block, ...runs]), patience) };
};

describe("runs of a scan", () => {
  it("are handed out together, by block, and when they are many", () => {
    const { batches, add, flush } = gather("at the end");
    add(0, 1, 2);
    add(0, 9, 1);
    expect(batches).toEqual([]);
    add(1, 0, 8 * PACKET_PAGES_MAX);
    expect(batches).toEqual([
      [0, 1, 2, 9, 1],
      [1, 0, 8 * PACKET_PAGES_MAX],
    ]);
    for (let run = 0; run < 300; run++) add(1, 2 * run, 1);
    expect(batches).toHaveLength(3);
    flush();
    flush();
    expect(batches).toHaveLength(4);
    expect(batches.slice(2).reduce((sum, batch) => sum + (batch.length - 1) / 2, 0)).toBe(300);
  });

  it("that are few wait for the end of the scan, or for that of the turn, as wanted", async () => {
    const patient = gather("at the end");
    const prompt = gather("each turn");
    for (const { add } of [patient, prompt]) {
      add(0, 1, 1);
      add(0, 5, 1);
    }
    await nextTurn();
    expect(patient.batches).toEqual([]);
    expect(prompt.batches).toEqual([[0, 1, 1, 5, 1]]);
    prompt.add(0, 7, 1);
    prompt.flush();
    await nextTurn();
    expect(prompt.batches).toHaveLength(2);
  });
});
