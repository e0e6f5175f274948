// Checkpoints as an operator has them: save, inspect, restore.
import { truncateSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, assert, beforeAll, describe, it } from "vitest";
import { run, runJson, type Started, start } from "./godwit-process.ts";

describe("a checkpoint on the command line", () => {
  let up: Started;
  let nats: ReadonlyArray<string>;
  let folder: string;
  beforeAll(async () => {
    up = start(["up", "--port", "0", "--guest", "vm1=builtin:memory=32MiB", "--json"]);
    await up.printed('"log-file"');
    const document = JSON.parse(up.stdout());
    nats = ["--nats", document.nats];
    folder = join(dirname(document["log-file"]), "checkpoints");
  });
  afterAll(async () => {
    up?.kill("SIGTERM");
    await up?.finished;
  });

  it("is saved, and shown with what it holds", async () => {
    const { code, document } = await runJson(["save", "vm1", "file:first", "--checksums", ...nats]);
    assert.strictEqual(code, 0, JSON.stringify(document));
    assert.deepInclude(document, { what: "save", status: "completed", guest: "vm1", node: "a", total: 32 * 1024 ** 2 });
    const shown = await runJson(["inspect", join(folder, "first")]);
    assert.strictEqual(shown.code, 0);
    assert.deepInclude(shown.document, {
      whole: true,
      driver: "builtin",
      machine: "builtin-1",
      checksums: "of this save",
    });
    const [block] = shown.document.blocks;
    assert.deepInclude(block, {
      name: "ram0",
      "length-bytes": 32 * 1024 ** 2,
      "pages-stored": document.normal,
      "pages-zero": document.zero,
    });
    assert.deepInclude(shown.document.sections[0], { name: "godwit-builtin" });
    const text = await run(["inspect", `file:${join(folder, "first")}`]);
    assert.include(text.stdout, "a whole checkpoint of a builtin guest");
  });

  it("is shown by `godwit status` while it is written, with its phase, bytes and rate", async () => {
    const saving = start([
      "save",
      "vm1",
      "file:slow",
      "--set",
      "max-bandwidth=1048576",
      "--set",
      "downtime-limit=1",
      ...nats,
    ]);
    await saving.printed("save ");
    const id = /save ([0-9a-f]{16})/.exec(saving.stdout())![1]!;
    const look = async () => (await runJson(["status", ...nats])).document.checkpoints[0];
    let shown = await look();
    while (shown.status === "setup") shown = await look();
    assert.deepInclude(shown, { id, what: "save", guest: "vm1", node: "a", uri: "file:slow", status: "active" });
    assert.isAbove(shown.remaining, 0);
    assert.isAtLeast(shown.mbps, 0);
    const text = await run(["status", id, ...nats]);
    assert.match(text.stdout, new RegExp(`${id} +save +vm1 +a +active .*/s`));
    saving.kill("SIGINT");
    await saving.finished;
  });

  it("is not restored while its guest runs", async () => {
    const { code, document } = await runJson(["restore", "vm1", "file:first", "--on", "b", ...nats]);
    assert.strictEqual(code, 1);
    assert.deepInclude(document.error, { code: "guest-exists" });
  });

  it("that was cut is shown as none, with the byte", async () => {
    truncateSync(join(folder, "first"), 2 ** 20 + 5);
    const { code, document } = await runJson(["inspect", join(folder, "first")]);
    assert.strictEqual(code, 1);
    assert.strictEqual(document.error.code, "bad-checkpoint");
    assert.match(document.error.reason, /^at byte \d+: /);
  });

  it("of a guest that nobody has, and one without a node to start on, are refused", async () => {
    assert.strictEqual((await runJson(["save", "vm9", "file:x", ...nats])).document.error.code, "no-such-guest");
    const { code, stderr } = await run(["restore", "vm1", "file:first", ...nats]);
    assert.strictEqual(code, 2);
    assert.include(stderr, "--on is missing");
  });
});
