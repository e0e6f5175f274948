import { expect, it } from "vitest";
import { isHalfDone } from "./half-done.ts";

it("a loader that is to end waits for a guest that it is taking over, and not for pages", () => {
  expect(isHalfDone({ phase: { _tag: "Loading" } })).toBe(true);
  expect(isHalfDone({ phase: { _tag: "Committing", settlement: {} as never } })).toBe(true);
  expect(isHalfDone({ phase: { _tag: "Starting" } })).toBe(true);
  expect(isHalfDone({ phase: { _tag: "Ready" } })).toBe(false);
  expect(isHalfDone({ phase: { _tag: "Paging" } })).toBe(false);
});
