import { describe, expect, it } from "vitest";
import { type Asked, chooseSource } from "./source-node.ts";

const node = (name: string, ...states: ReadonlyArray<string>): Asked => ({
  node: name,
  info: {
    node: name,
    "godwit-version": "0.1.0",
    workers: 1,
    guests: states.map((state) => ({ name: "vm", driver: "builtin", machine: "", "memory-bytes": 0, state })),
  },
  versionObstacle: null,
});
const silent = (name: string): Asked => ({ node: name, info: null, versionObstacle: null });
const foreign = (name: string): Asked => ({ node: name, info: null, versionObstacle: `node ${name} speaks 9.0` });

describe("the node that a guest is moved away from", () => {
  it("is the one where it runs, or is paused, whoever else has one of its name", () => {
    for (const state of ["running", "paused"] as const)
      expect(chooseSource("vm", [node("a", "incoming"), node("b", state), silent("c")])).toMatchObject({ node: "b" });
  });

  it("is not guessed while a node that may have it does not answer", () => {
    expect(chooseSource("vm", [node("a", "incoming"), silent("b")])).toMatchObject({ code: "node-silent" });
    expect(chooseSource("vm", [node("a"), silent("b")])).toMatchObject({ code: "node-silent" });
  });

  it("is one that has it in another state, when all were heard", () => {
    for (const state of ["unreachable", "gone", "failed"])
      expect(chooseSource("vm", [node("a", "incoming"), node("b", state)])).toMatchObject({ _tag: "Found", node: "b" });
  });

  it("is nobody's when nobody has it, and may be one of another version's", () => {
    expect(chooseSource("vm", [node("a"), node("b")])).toMatchObject({ code: "no-such-guest" });
    expect(chooseSource("vm", [node("a", "incoming"), node("b")])).toMatchObject({
      code: "no-such-guest",
      reason: "guest vm is waited for at node a; none of the nodes a, b has a guest vm to move",
    });
    expect(chooseSource("vm", [node("a", "incoming"), foreign("b")])).toMatchObject({
      code: "version-mismatch",
      reason: expect.stringContaining("guest vm is waited for at node a; "),
    });
    expect(chooseSource("vm", [])).toMatchObject({ code: "no-such-guest" });
    expect(chooseSource("vm", [node("a"), foreign("b")])).toMatchObject({ code: "version-mismatch" });
  });
});
