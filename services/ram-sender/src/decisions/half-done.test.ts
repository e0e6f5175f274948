import { expect, it } from "vitest";
import { isHalfDone } from "./half-done.ts";

it("a sender that is to end waits for a guest that stands still, and not for an operator or for pages that are fetched", () => {
  const settlement = {} as never;
  expect(isHalfDone({ phase: { _tag: "Stopping" } })).toBe(true);
  expect(isHalfDone({ phase: { _tag: "Switching", settlement } })).toBe(true);
  expect(isHalfDone({ phase: { _tag: "TakingBack", settlement } })).toBe(true);
  expect(isHalfDone({ phase: { _tag: "Ended", outcome: "completed" } })).toBe(true);
  expect(isHalfDone({ phase: { _tag: "Precopy", scanning: true, verdict: "none" } })).toBe(false);
  expect(isHalfDone({ phase: { _tag: "PreSwitchover" } })).toBe(false);
  expect(isHalfDone({ phase: { _tag: "Serving" } })).toBe(false);
});
