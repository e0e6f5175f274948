// A coordinator and two hosts as an operator starts them, each a process of its own.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { afterAll, assert, beforeAll, describe, it } from "vitest";
import { processesWith, run, runJson, type Started, start } from "./godwit-process.ts";

/** Two nodes and a coordinator start one after the other on a machine that may be busy, ms. */
const START_MS = 120_000;

describe("a coordinator and two nodes", () => {
  let directory: string;
  let memory: string;
  let nats: LocalNats;
  let coordinator: Started;
  const nodes = new Map<string, Started>();

  const ask = (...args: ReadonlyArray<string>) => runJson([...args, "--nats", nats.url]);
  const startNode = async (name: string, ...args: ReadonlyArray<string>): Promise<Started> => {
    const where = ["--runtime-dir", join(directory, name), "--guest-dir", join(memory, name)];
    const node = start(["node", "--name", name, "--workers", "2", "--nats", nats.url, ...where, ...args]);
    nodes.set(name, node);
    await node.printed(`node ${name} is ready`);
    return node;
  };
  const GUEST = ["--guest", "vm1=builtin:memory=64MiB,dirty-rate=4MiB/s"];
  const placeOf = async (guest: string): Promise<ReadonlyArray<string>> => {
    const { document } = await ask("guests");
    return document
      .filter(
        ({ name, state }: { readonly name: string; readonly state: string }) => name === guest && state === "running",
      )
      .map(({ node }: { readonly node: string }) => node);
  };

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "godwit-hosts-"));
    memory = mkdtempSync("/dev/shm/godwit-hosts-");
    nats = await startNats({ storeDir: join(directory, "nats") });
    assert.strictEqual((await run(["setup-nats", "--nats", nats.url])).code, 0);
    coordinator = start(["coordinator"], { environment: { GODWIT_NATS: nats.url } });
    await Promise.all([coordinator.printed("the coordinator is ready"), startNode("a", ...GUEST), startNode("b")]);
  }, START_MS);

  afterAll(async () => {
    const started = [coordinator, ...nodes.values()];
    for (const process of started) process.kill("SIGTERM");
    await Promise.all(started.map(({ finished }) => finished));
    // A guest that arrived stays when its node is stopped.
    for (const pid of processesWith(memory)) process.kill(pid, "SIGTERM");
    await nats.stop();
    rmSync(directory, { recursive: true, force: true });
    rmSync(memory, { recursive: true, force: true });
  });

  it("are listed, with their guests", async () => {
    const { code, document } = await ask("nodes");
    assert.strictEqual(code, 0);
    assert.deepStrictEqual(
      document.map(({ node }: { readonly node: string }) => node),
      ["a", "b"],
    );
    const guests = await ask("guests");
    assert.deepInclude(guests.document[0], {
      name: "vm1",
      node: "a",
      state: "running",
      "memory-bytes": 64 * 1024 ** 2,
    });
  });

  it.each([
    ["no-such-migration", 1, ["status"]],
    ["no-such-guest", 1, ["migrate", "vm9", "--to", "b"]],
    ["no-such-node", 1, ["migrate", "vm1", "--to", "c"]],
    ["guest-exists", 1, ["migrate", "vm1", "--to", "a"]],
    ["unknown-parameter", 2, ["migrate", "vm1", "--to", "b", "--set", "speed=1"]],
    ["invalid-parameter", 2, ["migrate", "vm1", "--to", "b", "--channels", "256"]],
    ["unknown-capability", 2, ["migrate", "vm1", "--to", "b", "--capability", "teleport"]],
  ])("refuse with %s", async (expected, exit, args) => {
    const { code, document } = await ask(...args);
    assert.strictEqual(document.error.code, expected);
    assert.strictEqual(code, exit);
    assert.isNotEmpty(document.error.remedy);
  });

  it("take back a guest whose migration is cancelled, having changed what may change meanwhile", async () => {
    const begun = await ask("migrate", "vm1", "--to", "b", "--set", "max-bandwidth=1MiB/s", "--detach");
    assert.strictEqual(begun.code, 0);
    const { migration } = begun.document;
    const busy = await ask("migrate", "vm1", "--to", "b");
    assert.strictEqual(busy.document.error.code, "migration-in-progress");
    assert.strictEqual((await ask("set", migration, "max-bandwidth=2MiB/s")).code, 0);
    assert.strictEqual((await ask("set", "multifd-channels=3")).document.error.code, "wrong-state");

    const cancelled = await ask("cancel", migration);
    assert.strictEqual(cancelled.code, 0);
    assert.deepInclude(cancelled.document, { migration, status: "cancelled" });
    assert.deepStrictEqual(await placeOf("vm1"), ["a"]);
    assert.strictEqual((await ask("cancel", migration)).document.error.code, "wrong-state");
    const watched = await ask("watch", migration);
    assert.strictEqual(watched.code, 1);
    assert.strictEqual(watched.document.error.code, "cancelled");
  });

  it("go on with a migration when nobody watches it any more", async () => {
    const slow = ["migrate", "vm1", "--to", "b", "--set", "max-bandwidth=1MiB/s", "--nats", nats.url];
    const watching = start(slow);
    await watching.printed("active round 1");
    watching.kill("SIGINT");
    const { code, stderr } = await watching.finished;
    assert.strictEqual(code, 130);
    assert.include(stderr, "goes on; `godwit cancel` ends it");
    assert.strictEqual((await ask("status")).document.status, "active");
    assert.strictEqual((await ask("cancel")).code, 0);
  });

  it("wait with the guest stopped when they are asked to, until they shall continue", async () => {
    const capability = ["--capability", "pause-before-switchover"];
    const { document } = await ask(
      "migrate",
      "vm1",
      "--to",
      "b",
      "--set",
      "max-bandwidth=0",
      "--detach",
      ...capability,
    );
    const watching = start(["watch", document.migration, "--nats", nats.url]);
    await watching.printed("pre-switchover");
    const { document: waiting } = await ask("status");
    assert.deepInclude(waiting, { migration: document.migration, status: "pre-switchover" });

    const continued = await ask("continue", document.migration);
    assert.strictEqual(continued.code, 0);
    assert.deepInclude(continued.document, { status: "completed", source: "a", destination: "b" });
    assert.strictEqual((await watching.finished).code, 0);
    assert.deepStrictEqual(await placeOf("vm1"), ["b"]);
  });

  it("move it back, over the channels asked for, and remember it", async () => {
    const { code, document } = await ask("migrate", "vm1", "--to", "a", "--channels", "3", "--set", "max-bandwidth=0");
    assert.strictEqual(code, 0);
    assert.deepInclude(document, { status: "completed", guest: "vm1", source: "b", destination: "a" });
    assert.lengthOf(document.channels, 3);

    const { document: newest } = await ask("status");
    assert.deepInclude(newest, { migration: document.migration, status: "completed" });
    assert.strictEqual(newest.ram.transferred, document.ram.transferred);
    const { document: all } = await ask("status", "--all");
    assert.deepStrictEqual(
      all.map(({ status }: { readonly status: string }) => status),
      ["cancelled", "cancelled", "completed", "completed"],
    );
    assert.strictEqual((await ask("status", all[0].migration)).document.status, "cancelled");
  });

  it("do not start a guest a second time that has moved away", async () => {
    assert.strictEqual((await ask("migrate", "vm1", "--to", "b", "--set", "max-bandwidth=0")).code, 0);
    const former = nodes.get("a");
    former?.kill("SIGTERM");
    assert.strictEqual((await former?.finished)?.code, 143);
    await startNode("a", ...GUEST);
    assert.deepStrictEqual(await placeOf("vm1"), ["b"]);
  });

  it("end the guests that they have started, and no others", async () => {
    const former = nodes.get("a");
    former?.kill("SIGTERM");
    await former?.finished;
    const fresh = await startNode("a", "--guest", "vm2=builtin:memory=16MiB");
    assert.deepStrictEqual(await placeOf("vm2"), ["a"]);
    assert.lengthOf(processesWith(join(memory, "a", "vm2.sock")), 1);
    fresh.kill("SIGTERM");
    await fresh.finished;
    assert.isEmpty(processesWith(join(memory, "a", "vm2.sock")));
    assert.lengthOf(processesWith(join(memory, "b", "vm1.sock")), 1);
    await startNode("a");
  });
});
