import type { NodeInfo, OwnershipEntry } from "@godwit/protocol";
import { assert, describe, it } from "vitest";
import { mayRestore } from "./restore-claim.ts";

const entryOf = (node: string, open = false): OwnershipEntry =>
  ({
    revision: 7,
    record: { state: "source", epoch: 3, op: "x", migration: "0".repeat(16), node, open, wasRunning: true },
  }) as OwnershipEntry;
const nodeOf = (node: string, ...guests: ReadonlyArray<readonly [string, string]>): NodeInfo =>
  ({
    node,
    workers: 1,
    "godwit-version": "0",
    guests: guests.map(([name, state]) => ({ name, state })),
  }) as unknown as NodeInfo;

describe("a restore at node b", () => {
  const asked = { guest: "vm1", node: "b", entry: null, nodes: [nodeOf("a"), nodeOf("b")], takeOver: false };
  it.each([
    ["of a guest that was never anywhere", {}],
    ["of one that ran here last", { entry: entryOf("b") }],
    ["of one whose node says that it has it no more", { entry: entryOf("a") }],
    ["of one whose process is gone", { entry: entryOf("a"), nodes: [nodeOf("a", ["vm1", "gone"])] }],
    ["of one whose host is dead, says the operator", { entry: entryOf("c"), takeOver: true }],
    ["of one whose host died in a migration, says the operator", { entry: entryOf("c", true), takeOver: true }],
  ])("%s is allowed", (_what, more) => {
    assert.isNull(mayRestore({ ...asked, ...more }));
  });

  it.each([
    ["of one that runs elsewhere", { nodes: [nodeOf("a", ["vm1", "running"])] }, "guest-exists"],
    [
      "of one that runs elsewhere, whatever the operator says",
      { nodes: [nodeOf("a", ["vm1", "running"])], takeOver: true },
      "guest-exists",
    ],
    ["of one that stands still elsewhere", { nodes: [nodeOf("a", ["vm1", "paused"])] }, "guest-exists"],
    ["of one that only does not answer", { nodes: [nodeOf("a", ["vm1", "unreachable"])] }, "guest-exists"],
    ["of one whose node does not answer", { entry: entryOf("c") }, "guest-exists"],
    [
      "of one whose node cannot be asked, since it speaks another version",
      { entry: entryOf("a"), nodes: [{ ...nodeOf("a"), error: "another version" }] },
      "guest-exists",
    ],
    ["of one that is being moved", { entry: entryOf("a", true) }, "migration-in-progress"],
  ])("%s is refused", (_what, more, code) => {
    assert.strictEqual(mayRestore({ ...asked, ...more })?.code, code);
  });
});
