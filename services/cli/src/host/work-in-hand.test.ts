import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openRegistry } from "@godwit/guest";
import { exportBlocks, withdrawExports } from "@godwit/memory";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import { workInHand } from "./work-in-hand.ts";

describe("what a host has in hand", () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "godwit-in-hand-"));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it("is nothing where actors have never run, and where guests only run", () => {
    assert.deepStrictEqual(workInHand(directory), []);
    openRegistry(directory).put({ driver: "qemu", name: "vm1", qmp: "/run/vm1.qmp" });
    assert.deepStrictEqual(workInHand(directory), []);
  });

  it("is a guest that a migration has in hand, until that is settled", () => {
    const registry = openRegistry(directory);
    registry.put({ driver: "qemu", name: "vm1", qmp: "/run/vm1.qmp", moving: "arriving" });
    assert.deepStrictEqual(workInHand(directory), ["guest vm1 arrives"]);
    registry.settle("vm1");
    assert.deepStrictEqual(workInHand(directory), []);
  });

  it("is memory that workers may read, long before the guest is stopped", () => {
    const block = { name: "ram0", lengthBytes: 4096, hostPageBytes: 4096, path: "/dev/shm/vm1", fileOffset: 0 };
    exportBlocks(directory, "0123456789abcdef", 1, [block]);
    assert.deepStrictEqual(workInHand(directory), ["memory is sent for 0123456789abcdef"]);
    withdrawExports(directory, "0123456789abcdef");
    assert.deepStrictEqual(workInHand(directory), []);
  });
});
