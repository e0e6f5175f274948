import { type AddressInfo, createServer } from "node:net";
import { assert, describe, it } from "vitest";
import { leftovers, NOTHING, runJson, start } from "./godwit-process.ts";

const UP = ["up", "--port", "0", "--guest", "vm1=builtin:memory=32MiB"];

describe("godwit up", () => {
  it("gives a cluster to try, and says how, until Ctrl-C", async () => {
    const up = start(UP, { job: true });
    await up.printed("Ctrl-C stops everything");
    const url = /--to b (--nats \S+)$/m.exec(up.stdout())?.[1]?.split(" ") ?? [];
    const { document } = await runJson(["migrate", "vm1", "--to", "b", "--set", "max-bandwidth=0", ...url]);
    assert.deepInclude(document, { status: "completed", source: "a", destination: "b" });
    up.kill("SIGINT");
    assert.strictEqual((await up.finished).code, 130);
    assert.deepStrictEqual(leftovers("up", up.pid), NOTHING);
  });

  it("says which port is taken, and what to do", async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const { port } = other.address() as AddressInfo;
    const up = start(["up", "--port", String(port), "--json"]);
    const { code, stdout } = await up.finished;
    other.close();
    assert.strictEqual(code, 1);
    const document = JSON.parse(stdout);
    assert.include(document.error.reason, `port ${port} of 127.0.0.1 is taken`);
    assert.include(document.error.reason, "--port 0");
    assert.deepStrictEqual(leftovers("up", up.pid), NOTHING);
  });

  it("prints one document, and stays", async () => {
    const up = start([...UP, "--json"]);
    await up.printed('"log-file"');
    up.kill("SIGTERM");
    const { code, stdout } = await up.finished;
    assert.strictEqual(code, 143);
    assert.deepInclude(JSON.parse(stdout), { nodes: ["a", "b"], guests: ["vm1"] });
    assert.deepStrictEqual(leftovers("up", up.pid), NOTHING);
  });
});
