import { existsSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tryShareFile } from "@godwit/host";
import { afterAll, assert, describe, it } from "vitest";
import { enterGate, openGate } from "./gate.ts";

const directory = mkdtempSync(join(tmpdir(), "godwit-gate-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;
const fresh = (): string => join(directory, `gate-${++count}`);

describe("the gate of a round", () => {
  it("lets many in, and is not shut while one is within", () => {
    const path = fresh();
    const gate = openGate(path);
    const leave = [enterGate(path), enterGate(path)];
    assert.isFalse(gate.shut());
    leave[0]?.();
    assert.isFalse(gate.shut());
    leave[1]?.();
    assert.isTrue(gate.shut());
    assert.isNull(enterGate(path));
    assert.isFalse(existsSync(path));
  });

  it("lets nobody in who had found it before it was shut", () => {
    const path = fresh();
    const gate = openGate(path);
    // A worker that was stopped between finding the gate and entering it.
    const fd = openSync(path, "r");
    assert.isTrue(gate.shut());
    assert.isTrue(tryShareFile(fd), "the lock alone would let it in");
    assert.isNull(enterGate(path));
  });

  it("can be given up while somebody is within", () => {
    const path = fresh();
    const gate = openGate(path);
    const leave = enterGate(path);
    gate.abandon();
    assert.isNull(enterGate(path));
    leave?.();
  });
});
