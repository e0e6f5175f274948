import { expect, it } from "vitest";
import { type Trial, tallyOf, tallyText } from "../../deploy/docker/chaos/tally.ts";

const completed: Trial = {
  status: "completed",
  attempts: 1,
  totalMs: 4000,
  downtimeMs: 80,
  error: null,
  violations: [],
};
const failed: Trial = {
  status: "failed",
  attempts: 3,
  totalMs: 9000,
  downtimeMs: null,
  error: "stalled: x",
  violations: [],
};

it("a tally of chaos counts what happened, and names each breach with its migration", () => {
  const wrong: Trial = { ...completed, totalMs: 6000, downtimeMs: 120, violations: ["the guest runs twice: a and b"] };
  const stuck: Trial = { ...failed, status: "stuck", attempts: 0, violations: ["no end within 120000 ms"] };
  const tally = tallyOf([completed, failed, wrong, stuck], 7);
  expect(tally).toEqual({
    migrations: 4,
    completed: 2,
    "back-at-source": 1,
    refused: 0,
    stuck: 1,
    attempts: 5,
    "workers-killed": 7,
    "total-time-median-ms": 6000,
    "downtime-median-ms": 120,
    violations: ["migration 3: the guest runs twice: a and b", "migration 4: no end within 120000 ms"],
  });
  const text = tallyText(tally);
  expect(text).toMatch(/^violations +2$/m);
  expect(text).toContain("\n  migration 3: the guest runs twice: a and b\n");
});

it("a tally of nothing has no violations, and no numbers either", () => {
  expect(tallyOf([], 0)).toMatchObject({ migrations: 0, completed: 0, violations: [], "downtime-median-ms": 0 });
});
