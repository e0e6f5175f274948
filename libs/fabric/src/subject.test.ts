import { describe, expect, it } from "vitest";
import { isToken, matchesSubject } from "./subject.ts";

describe("subjects", () => {
  it.each([
    ["a.b", "a.b", true],
    ["a.b", "a.c", false],
    ["a.b", "a", false],
    ["a", "a.b", false],
    ["*", "a", true],
    ["*", "a.b", false],
    ["a.*.c", "a.b.c", true],
    ["a.*", "a", false],
    [">", "a", true],
    ["a.>", "a.b.c", true],
    ["a.>", "a", false],
    ["*.>", "a.b", true],
  ])("%s and %s: %s", (pattern, subject, matches) => expect(matchesSubject(pattern, subject)).toBe(matches));

  it("a token is short and has no character with a meaning", () => {
    expect(["a", "A-z_0", "x".repeat(64)].map(isToken)).toEqual([true, true, true]);
    for (const bad of ["", "a.b", "*", ">", "a b", "a/b", "..", "\n", "a\n", "ä", "x".repeat(65)]) {
      expect(isToken(bad), bad).toBe(false);
    }
  });
});
