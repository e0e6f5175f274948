import { PARAMETER_DEFAULTS, type VfioCommand } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { type Known, route } from "./agent.ts";

const ME = "a".repeat(16);
const ANOTHER = "b".repeat(16);

const command = (change: object): VfioCommand =>
  ({
    _tag: "Save",
    migration: "m1",
    epoch: 5,
    guest: "vm1",
    stage: "precopy",
    parameters: PARAMETER_DEFAULTS,
    "block-bytes": [],
    ...change,
  }) as never;
const known = (change: Partial<Known> = {}): Known => ({
  role: "Save",
  migration: "m1",
  epoch: 5,
  guest: "vm1",
  ...change,
});

describe("a command", () => {
  it("for a session that is there goes to it, at whichever stage, from whomever the session was known to be", () => {
    const session = known();
    for (const stage of ["precopy", "stopped", "resumed", "discarded"])
      for (const agent of [undefined, ME, ANOTHER])
        expect(route([session], ME, command({ stage, agent }))).toEqual({ _tag: "Step", session });
  });

  it("of an attempt that a higher epoch has fenced off is ignored, whatever it says (R7)", () => {
    for (const stage of ["precopy", "stopped", "resumed", "discarded"])
      expect(route([known({ epoch: 6, migration: "m2" })], ME, command({ stage }))).toEqual({ _tag: "Ignore" });
  });

  it("of a higher epoch ends what is there of the guest, and begins", () => {
    const [old, other] = [known({ epoch: 4, migration: "m0" }), known({ guest: "vm2", epoch: 9 })];
    expect(route([old, other], ME, command({}))).toEqual({ _tag: "Begin", replaces: [old] });
  });

  it("leaves the other role of the same guest alone: it may be coming back", () => {
    const session = known({ role: "Load", epoch: 4 });
    expect(route([session], ME, command({}))).toEqual({ _tag: "Begin", replaces: [] });
    expect(route([known({ role: "Load", epoch: 9 })], ME, command({}))).toEqual({ _tag: "Begin", replaces: [] });
  });

  it.each([
    ["Save", "stopped"],
    ["Load", "loaded"],
  ])("to %s that goes on to `%s` with what this process never began is answered: unknown", (_tag, stage) => {
    for (const agent of [undefined, ME, ANOTHER])
      expect(route([], ME, command({ _tag, stage, agent }))).toEqual({ _tag: "Unknown" });
  });

  it.each([
    ["Save", "precopy"],
    ["Load", "ready"],
  ])("to %s that begins with `%s` what another process had begun is answered: unknown", (_tag, stage) => {
    expect(route([], ME, command({ _tag, stage, agent: ANOTHER }))).toEqual({ _tag: "Unknown" });
    expect(route([], ME, command({ _tag, stage }))).toEqual({ _tag: "Begin", replaces: [] });
    expect(route([], ME, command({ _tag, stage, agent: ME }))).toEqual({ _tag: "Begin", replaces: [] });
  });

  it.each([
    ["Save", "resumed"],
    ["Save", "discarded"],
    ["Load", "running"],
    ["Load", "discarded"],
  ])("to %s that ends with `%s` is followed by whichever process there is", (_tag, stage) => {
    for (const agent of [undefined, ME, ANOTHER])
      expect(route([], ME, command({ _tag, stage, agent }))).toEqual({ _tag: "Begin", replaces: [] });
  });
});
