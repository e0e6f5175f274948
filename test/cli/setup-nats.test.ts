import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { afterAll, assert, beforeAll, describe, it } from "vitest";
import { run, runJson } from "./godwit-process.ts";

describe("godwit setup-nats", () => {
  let directory: string;
  let nats: LocalNats;
  let monitor = "";
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "godwit-setup-nats-"));
    nats = await startNats({
      storeDir: directory,
      config: 'http: "127.0.0.1:-1"',
      log: (line) => {
        monitor ||= /Starting http monitor on (\S+)/.exec(line)?.[1] ?? "";
      },
    });
  });
  afterAll(async () => {
    await nats.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  it.each([
    ["a coordinator", ["coordinator"]],
    ["a node", ["node", "--name", "a"]],
  ])("must be run first: %s refuses to start, and says so", async (_, words) => {
    const own = ["--nats", nats.url, ...(words[0] === "node" ? ["--runtime-dir", join(directory, "runtime")] : [])];
    const { code, document } = await runJson([...words, ...own]);
    assert.strictEqual(code, 1);
    assert.strictEqual(document.error.code, "bucket-missing");
    assert.include(document.error.reason, "KV_godwit_ownership");
    assert.include(document.error.remedy, "godwit setup-nats");
  });

  it("makes the buckets, reads sync_interval back, and changes nothing the second time", async () => {
    const words = ["setup-nats", "--nats", nats.url, "--nats-monitor", `http://${monitor}`];
    for (const done of ["made", "kept"]) {
      const { code, document } = await runJson(words);
      assert.strictEqual(code, 0);
      assert.deepStrictEqual(
        document.buckets.map((bucket: Record<string, unknown>) => [bucket["bucket"], bucket["done"]]),
        [
          ["godwit_ownership", done],
          ["godwit_migrations", done],
        ],
      );
      assert.deepInclude(document["sync-interval"], { state: "works" });
      assert.match(document["sync-interval"].detail, /^always, at /);
    }
  });

  it("tells a human what is there now, and what nats-server.conf must say", async () => {
    const { stdout } = await run(["setup-nats", "--nats", nats.url]);
    assert.include(stdout, "bucket godwit_ownership: kept; 1 replica");
    assert.include(stdout, "sync_interval: not known: ");
    const { code, stdout: configuration } = await run(["setup-nats", "--print-config"]);
    assert.strictEqual(code, 0);
    assert.include(configuration, "sync_interval: always");
    assert.include(stdout, configuration);
  });

  it("does not claim success for a bucket that it cannot correct, and says what to do", async () => {
    const other = await startNats({ storeDir: join(directory, "memory") });
    const nc = await connect({ servers: other.url });
    const manager = await jetstreamManager(nc);
    const subjects = ["$KV.godwit_ownership.>"];
    await manager.streams.add({ name: "KV_godwit_ownership", subjects, storage: "memory", allow_direct: true });
    await nc.close();
    const { code, document } = await runJson(["setup-nats", "--nats", other.url]);
    const { stderr } = await run(["doctor", "--nats", other.url]);
    await other.stop();
    assert.strictEqual(code, 1);
    assert.strictEqual(document.error.code, "bucket-unsafe");
    assert.include(document.error.reason, 'storage is "memory", not "file"');
    assert.include(document.error.reason, "nats stream rm");
    const corrected = document.buckets[0].corrected.map(({ what }: { readonly what: string }) => what);
    assert.includeMembers(corrected, ["allow_direct", "deny_delete", "deny_purge", "max_bytes"]);
    assert.include(stderr, 'bucket godwit_ownership: storage is "memory", not "file"; run `godwit setup-nats`');
  });

  it("prints a configuration that nats-server takes", async () => {
    const { stdout } = await run(["setup-nats", "--print-config"]);
    const own = stdout
      .replace("/var/lib/nats", join(directory, "printed"))
      .replace('"127.0.0.1:8222"', '"127.0.0.1:-1"');
    const server = await startNats({ storeDir: join(directory, "printed"), jetstream: false, config: own });
    const { code } = await run(["setup-nats", "--nats", server.url]);
    await server.stop();
    assert.strictEqual(code, 0);
  });
});
