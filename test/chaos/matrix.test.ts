import { describe, expect, it } from "vitest";
import type { Combination } from "./fault.ts";
import { broken, matrixPage } from "./matrix.ts";
import type { Outcome } from "./run.ts";
import { scheduleOf } from "./schedule.ts";

const outcome = (of: Partial<Combination> | null, to: Partial<Outcome> = {}): Outcome => {
  const schedule = { ...scheduleOf(1), shape: "swift" as const };
  const first = { ...schedule.faults[0]!, actor: "multifd worker", kind: "cut", phase: "loading", ...of } as const;
  return {
    schedule: { ...schedule, faults: of === null ? [] : [first] },
    migration: "0123456789abcdef" as Outcome["migration"],
    source: "a",
    outcome: "completed",
    status: "completed",
    error: null,
    attempts: 1,
    downtimeMs: 40,
    freeMs: 500,
    resentItems: 0,
    resent: { packets: 0, bytes: 0 },
    struck: of === null ? [] : [true],
    violations: [],
    log: [],
    ...to,
  };
};
const page = (outcomes: ReadonlyArray<Outcome>): string =>
  matrixPage({ outcomes, command: "npm run chaos -- --runs 3 --seed 1", machine: "a machine" });
const cellsOf = (text: string, row: string): ReadonlyArray<string> =>
  (text.split("\n").find((line) => line.startsWith(`| ${row} `)) ?? "").split("|").map((cell) => cell.trim());

describe("the fault matrix", () => {
  it("sets each fault against undisturbed runs", () => {
    const resent = { packets: 2, bytes: 4096 };
    const text = page([outcome(null), outcome({}, { downtimeMs: 70, freeMs: 900, resentItems: 2, resent })]);
    expect(cellsOf(text, "cut, loading").slice(3)).toEqual(["1", "1", "0", "0", "0", "2", "4", "+30", "+400", ""]);
  });

  it("counts violations, and where completion was promised and missed", () => {
    const short = outcome({}, { outcome: "back at source", violations: ["memory: bad"] });
    expect(cellsOf(page([short]), "cut, loading").slice(3, 7)).toEqual(["1", "0", "1", "1"]);
    expect(broken([short, outcome({ actor: "loader" }, { outcome: "back at source" })])).toEqual([short]);
    expect(page([short])).toContain("missed in 1: seeds 1.");
  });

  it("lists a fault whose moment did not come under no phase", () => {
    const text = page([outcome({}, { struck: [false] })]);
    expect(text).not.toContain("cut, loading");
    expect(cellsOf(text, "moment did not come")[2]).toBe("1");
  });
});
