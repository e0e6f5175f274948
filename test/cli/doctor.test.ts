import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { afterAll, assert, beforeAll, describe, it } from "vitest";
import { run, runJson } from "./godwit-process.ts";

describe("godwit doctor", () => {
  let directory: string;
  let nats: LocalNats;
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "godwit-doctor-"));
    nats = await startNats({ storeDir: directory });
  });
  afterAll(async () => {
    await nats.stop();
    rmSync(directory, { recursive: true, force: true });
  });
  const stateOf = (document: { readonly findings: ReadonlyArray<Record<string, string>> }, what: string) =>
    document.findings.find((finding) => finding["what"] === what)?.["state"];

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
