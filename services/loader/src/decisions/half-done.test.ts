import { expect, it } from "vitest";
import { isHalfDone } from "./half-done.ts";

it("a loader that is to end waits for a guest that it is taking over, and until that was told, and not for pages", () => {
  const concluded = false;
  expect(isHalfDone({ concluded, phase: { _tag: "Loading" } })).toBe(true);
  expect(isHalfDone({ concluded, phase: { _tag: "Committing", settlement: {} as never } })).toBe(true);
  expect(isHalfDone({ concluded, phase: { _tag: "Starting" } })).toBe(true);
  expect(isHalfDone({ concluded, phase: { _tag: "Running" } })).toBe(true);
  expect(isHalfDone({ concluded: true, phase: { _tag: "Running" } })).toBe(false);
  expect(isHalfDone({ concluded, phase: { _tag: "Ready" } })).toBe(false);
  expect(isHalfDone({ concluded, phase: { _tag: "Paging" } })).toBe(false);
});
