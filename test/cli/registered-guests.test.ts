// Guests of a host that come and go while its actors run, and the wait before those are stopped. Files alone: no NATS is there.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openRegistry } from "@godwit/guest";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import { runJson, start } from "./godwit-process.ts";

describe("a host's guests", () => {
  let directory: string;
  const ask = (...args: ReadonlyArray<string>) =>
    runJson([...args, "--node", "a", "--runtime-dir", directory], {
      environment: { GODWIT_NATS: "nats://127.0.0.1:1" },
    });
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "godwit-registered-"));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it("are registered with their devices, and forgotten", async () => {
    const vfio = ["--vfio", "vm1:vfio0=vfio-user:/run/vfio0.sock"];
    const { code, document } = await ask("register", "vm1=qemu:/run/vm1.qmp", "vm2=qemu:/run/vm2.qmp", ...vfio);
    assert.strictEqual(code, 0);
    assert.deepStrictEqual(document, { node: "a", guests: ["vm1", "vm2"] });
    assert.deepStrictEqual(openRegistry(directory).find("vm1"), {
      driver: "qemu",
      name: "vm1",
      qmp: "/run/vm1.qmp",
      devices: [{ name: "vfio0", provider: "vfio-user", socket: "/run/vfio0.sock" }],
    });
    assert.strictEqual((await ask("unregister", "vm1")).code, 0);
    assert.deepStrictEqual(
      openRegistry(directory)
        .list()
        .map(({ name }) => name),
      ["vm2"],
    );
    assert.strictEqual((await ask("unregister", "vm1")).document.error.code, "no-such-guest");
  });

  it("are a migration's while it has them in hand", async () => {
    const registry = openRegistry(directory);
    registry.put({ driver: "qemu", name: "vm1", qmp: "/run/vm1.qmp", moving: "arriving" });
    const [again, away, waited] = await Promise.all([
      ask("register", "vm1=qemu:/run/other.qmp"),
      ask("unregister", "vm1"),
      ask("idle", "--timeout", "100ms"),
    ]);
    for (const { code, document } of [again, away, waited]) {
      assert.strictEqual(code, 1);
      assert.strictEqual(document.error.code, "migration-in-progress");
    }
    assert.include(waited.document.error.reason, "guest vm1 arrives");
    assert.strictEqual(registry.find("vm1")?.moving, "arriving");

    const waiting = start(["idle", "--node", "a", "--runtime-dir", directory]);
    registry.settle("vm1");
    const { code, stdout } = await waiting.finished;
    assert.strictEqual(code, 0);
    assert.strictEqual(stdout, "node a has nothing in hand\n");
  });
});
