// What a new user runs, as a process.
import { existsSync, readFileSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { assert, describe, it } from "vitest";
import { leftovers, NOTHING, run, runJson, start } from "./godwit-process.ts";

const MIB = 1024 ** 2;
const PAGES = (64 * MIB) / 4096;
/** Small and unlimited: what is tried here is the command, not the pace. */
const FAST = ["--memory", "64MiB", "--max-bandwidth", "0", "--dirty-rate", "8MiB/s"];
/** Slow enough for something to happen in the middle. */
const SLOW = ["--memory", "64MiB", "--max-bandwidth", "24MiB/s", "--dirty-rate", "4MiB/s"];

describe("godwit demo", () => {
  it("moves a guest, lets it check every page, and leaves nothing behind", async () => {
    const demo = start(["demo", ...FAST]);
    const { code, stdout, stderr } = await demo.finished;
    assert.strictEqual(code, 0, stdout + stderr);
    assert.match(stdout, /^active round 1 /m);
    assert.match(stdout, /^migration completed$/m);
    for (const [part, at] of [
      ["stop", "source"],
      ["commit", "destination"],
      ["start", "destination"],
    ])
      assert.match(stdout, new RegExp(`^ {2}${part} +${at} +[\\d,]+ +[\\d,]+ *#*$`, "m"));
    assert.match(stdout, /^ {2}sent .* over 4 channels$/m);
    assert.include(stdout, "verified    all 16,384 pages equal");
    assert.deepStrictEqual(leftovers("demo", demo.pid), NOTHING);
  });

  it("prints one JSON document and nothing else on stdout, with query-migrate's fields", async () => {
    const { code, document } = await runJson(["demo", ...FAST, "--channels", "2"]);
    assert.strictEqual(code, 0);
    assert.deepInclude(document, { status: "completed", guest: "vm1", source: "a", destination: "b", verified: true });
    assert.deepStrictEqual(document.verification, {
      "pages-total": PAGES,
      "pages-checked": PAGES,
      "bad-count": 0,
      bad: [],
    });
    assert.lengthOf(document.channels, 2);
    assert.strictEqual(document.ram.total, 64 * MIB);
    assert.isAtLeast(document.ram["dirty-sync-count"], 2);
    assert.isAbove(document.downtime, 0);
  });

  it("moves VFIO devices with the guest, and finds in them what was saved", async () => {
    const { code, document, stderr } = await runJson(["demo", ...FAST, "--vfio", "2x20MB"]);
    assert.strictEqual(code, 0, stderr);
    assert.deepInclude(document, { status: "completed", verified: true });
    const { source, destination } = document.vfio;
    for (const side of [source, destination]) {
      assert.deepStrictEqual(
        side.map(({ device }: { readonly device: string }) => device),
        ["vfio0", "vfio1"],
      );
    }
    for (const { state, arcs, transferred, ...device } of destination) {
      assert.strictEqual(state, "RUNNING");
      assert.isTrue(device["initial-loaded"]);
      assert.isAtLeast(transferred, 20e6);
      assert.deepInclude(arcs[0], { from: "RUNNING", to: "RESUMING" });
    }
    for (const { arcs } of source) assert.include(["STOP_COPY", "STOP"], arcs.at(-1).to);
    const checked = document.verification.devices;
    assert.lengthOf(checked, 2);
    for (const { saved, loaded, ...device } of checked) {
      assert.match(saved, /^[0-9a-f]{64}$/);
      assert.strictEqual(loaded, saved);
      assert.isTrue(device["config-equal"]);
    }
  });

  it("goes on when a worker is killed in the middle", async () => {
    const { code, document, stderr } = await runJson(["demo", ...SLOW, "--kill-worker"]);
    assert.strictEqual(code, 0, stderr);
    assert.match(stderr, /^killed multifd worker \d+ \(pid \d+\) in round 1 with .* in flight/m);
    assert.isAbove(document["killed-worker"]["in-flight-bytes"], 0);
    assert.isAbove(document["killed-worker"]["remaining-bytes"], 0);
    assert.isAbove(document.ram["resent-items"], 0);
    assert.isTrue(document.verified);
  });

  it("says why a migration failed, and where the log is", async () => {
    const { code, document, stderr } = await runJson([
      "demo",
      ...SLOW,
      "--downtime-limit",
      "0ms",
      "--set",
      "max-passes=1",
    ]);
    assert.strictEqual(code, 1);
    assert.deepInclude(document, { status: "failed", verified: false });
    assert.deepInclude(document.error, { code: "pass-limit", actor: "coordinator" });
    assert.include(stderr, "godwit: pass-limit: ");
    const log = /^the log of all actors: (.*)$/m.exec(stderr)?.[1] ?? "";
    assert.include(readFileSync(log, "utf8"), '"actor":"ram-sender"');
    assert.isFalse(existsSync(`${dirname(log)}/nats`));
    rmSync(dirname(log), { recursive: true });
  });

  it("refuses a guest that has no room, and says which one has", async () => {
    const { code, document } = await runJson(["demo", "--memory", "900TiB"]);
    assert.strictEqual(code, 1);
    assert.strictEqual(document.error.code, "no-space");
    assert.match(document.error.reason, /\/dev\/shm has .* free.*--memory \d+MiB would fit/);
  });

  it.each([
    ["unknown-parameter", ["--set", "downtime-limt=1"]],
    ["invalid-parameter", ["--channels", "255", "--set", "downtime-limit=1h"]],
    ["unknown-capability", ["--capability", "teleport"]],
    ["capability-conflict", ["--capability", "auto-converge", "--capability", "dirty-limit"]],
  ])("refuses with %s before it starts anything", async (expected, args) => {
    const { code, stdout, stderr } = await run(["demo", ...args]);
    assert.strictEqual(code, 2);
    assert.strictEqual(stdout, "");
    assert.match(stderr, new RegExp(`^godwit: ${expected}: `));
  });
});
