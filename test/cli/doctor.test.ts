import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { freePorts } from "@godwit/fabric/local-nats-cluster";
import { afterAll, assert, beforeAll, describe, it } from "vitest";
import { run, runJson } from "./godwit-process.ts";

interface Found {
  readonly findings: ReadonlyArray<{ readonly what: string; readonly state: string; readonly detail: string }>;
}

describe("godwit doctor", () => {
  let directory: string;
  let nats: LocalNats;
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "godwit-doctor-"));
    nats = await startNats({ storeDir: directory });
    await run(["setup-nats", "--nats", nats.url]);
  });
  afterAll(async () => {
    await nats.stop();
    rmSync(directory, { recursive: true, force: true });
  });
  const findingOf = (document: Found, what: string) => document.findings.find((finding) => finding.what === what);
  const stateOf = (document: Found, what: string) => findingOf(document, what)?.state;

  it("shows what this host and NATS offer", async () => {
    const { code, document } = await runJson(["doctor", "--nats", nats.url]);
    assert.strictEqual(code, 0);
    assert.isTrue(document.works);
    assert.strictEqual(stateOf(document, `NATS at ${nats.url}`), "works");
    for (const what of ["kernel", "Node.js", "/dev/shm", "tracker content", "nats-server"]) {
      assert.strictEqual(stateOf(document, what), "works", what);
    }
    for (const what of ["tracker userfaultfd", "tracker soft-dirty", "qemu-system-x86_64"]) {
      assert.isDefined(stateOf(document, what), what);
    }
  });

  it("reads the buckets back, and does not claim to know what clients are not told", async () => {
    const { document } = await runJson(["doctor", "--nats", nats.url]);
    for (const bucket of ["godwit_ownership", "godwit_migrations"]) {
      const finding = findingOf(document, `bucket ${bucket}`);
      assert.strictEqual(finding?.state, "works");
      for (const words of ["1 replica", "64 revisions", "no direct gets", "no deletes", "of 128 MiB used"])
        assert.include(finding?.detail ?? "", words);
    }
    const sync = findingOf(document, "sync_interval");
    assert.strictEqual(sync?.state, "absent");
    assert.match(sync?.detail ?? "", /^not known: .*--nats-monitor/);
  });

  it("looks into a JetStream domain behind a leaf node, where it is told its name", async () => {
    const [port = 0] = await freePorts(1);
    const hub = await startNats({
      storeDir: join(directory, "hub"),
      jsDomain: "hub",
      config: `leafnodes { listen: "127.0.0.1:${port}" }`,
    });
    const branch = await startNats({
      storeDir: join(directory, "branch"),
      jetstream: false,
      config: `leafnodes { reconnect: 1, remotes: [{ url: "nats-leaf://127.0.0.1:${port}" }] }`,
    });
    const own = ["--nats", branch.url, "--js-domain", "hub"];
    assert.strictEqual((await run(["setup-nats", ...own])).code, 0);
    const { document } = await runJson(["doctor", ...own]);
    const without = await runJson(["doctor", "--nats", branch.url]);
    await branch.stop();
    await hub.stop();
    assert.strictEqual(stateOf(document, "bucket godwit_ownership"), "works");
    assert.match(findingOf(document, `NATS at ${branch.url}`)?.detail ?? "", /; JetStream of domain hub on /);
    assert.match(findingOf(without.document, `NATS at ${branch.url}`)?.detail ?? "", /--js-domain/);
  });

  it("minds a server that acknowledges before it writes to the disk, and buckets that are not there", async () => {
    let monitor = "";
    const lazy = await startNats({
      storeDir: join(directory, "lazy"),
      jetstream: false,
      config: `jetstream { store_dir: ${JSON.stringify(join(directory, "lazy"))} }\nhttp: "127.0.0.1:-1"`,
      log: (line) => {
        monitor ||= /Starting http monitor on (\S+)/.exec(line)?.[1] ?? "";
      },
    });
    const { code, document } = await runJson(["doctor", "--nats", lazy.url, "--nats-monitor", `http://${monitor}`]);
    await lazy.stop();
    assert.strictEqual(code, 1);
    assert.include(document.error.reason, "sync_interval: 2 m 00 s");
    assert.include(document.error.reason, "bucket godwit_ownership: not there; run `godwit setup-nats`");
  });

  it("does not mind that nobody is where NATS would be by default", async () => {
    const { code, stdout } = await run(["doctor"]);
    assert.strictEqual(code, 0, stdout);
    assert.include(stdout, "godwit can work here");
  });

  it("minds that the server named is not there, or has no JetStream", async () => {
    const nowhere = await runJson(["doctor", "--nats", "nats://127.0.0.1:1"]);
    assert.strictEqual(nowhere.code, 1);
    assert.isFalse(nowhere.document.works);
    assert.include(nowhere.document.error.reason, "ECONNREFUSED");
    const plain = await startNats({ storeDir: join(directory, "plain"), jetstream: false });
    const { code, stderr } = await run(["doctor", "--nats", plain.url]);
    await plain.stop();
    assert.strictEqual(code, 1);
    assert.include(stderr, "without JetStream");
  });
});
