import { qemuIsInstalled } from "@godwit/guest";
import { assert, describe, it } from "vitest";
import { leftovers, NOTHING, runJson, start } from "./godwit-process.ts";

const because = qemuIsInstalled() ? "" : " (skipped: no qemu-system-x86_64 in PATH)";

describe("godwit demo-qemu", () => {
  it.skipIf(!qemuIsInstalled())(`moves a real QEMU, and proves that no update was lost${because}`, async () => {
    const args = ["--memory", "32MiB", "--dirty-rate", "16MiB/s", "--set", "max-bandwidth=0", "--json"];
    const demo = start(["demo-qemu", ...args]);
    const { code, stdout, stderr } = await demo.finished;
    assert.strictEqual(code, 0, stderr);
    const document = JSON.parse(stdout);
    assert.deepInclude(document, { status: "completed", verified: true, "dirty-tracker": "content" });
    assert.deepInclude(document.verification, { "ledger-faults": 0, "pages-different": 0, "pages-compared": 8192 });
    assert.isAbove(document.verification["updates-since"], 0);
    assert.deepStrictEqual(leftovers("demo-qemu", demo.pid), NOTHING);
  });

  it("says how to install QEMU where there is none", async () => {
    const { code, document } = await runJson(["demo-qemu"], { environment: { PATH: "/nonexistent" } });
    assert.strictEqual(code, 1);
    assert.strictEqual(document.error.code, "not-supported");
    assert.include(document.error.reason, "apt-get install qemu-system-x86");
  });
});
