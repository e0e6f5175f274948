// Two hosts as a container engine runs them: every actor a process of its own, nobody above them, and health checks.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { afterAll, assert, beforeAll, describe, it } from "vitest";
import { processesWith, run, runJson, type Started, start } from "./godwit-process.ts";

/** Eleven processes start on a machine that may be busy, ms. */
const START_MS = 120_000;
const GUEST = ["--guest", "vm1=builtin:memory=64MiB,dirty-rate=4MiB/s"];

describe("actors without a supervisor", () => {
  let directory: string;
  let memory: string;
  let nats: LocalNats;
  const actors = new Map<string, Started>();

  const environmentOf = (node: string) => ({
    GODWIT_NATS: nats.url,
    GODWIT_NODE: node,
    GODWIT_RUNTIME_DIR: join(directory, node),
    GODWIT_GUEST_DIR: join(memory, node),
    // Host b is as in containers, where guests must not be children of the actor that they were started for.
    ...(node === "b" ? { GODWIT_LAUNCHER: join(directory, "b", "launcher") } : {}),
  });
  const startActor = async (node: string, role: string, id = "0", ...args: ReadonlyArray<string>): Promise<Started> => {
    const environment = { ...environmentOf(node), GODWIT_WORKER: id };
    const actor = start(["actor", role, ...args], { environment });
    actors.set(`${role}/${node}/${id}`, actor);
    await actor.printed(role === "node" ? "node ready" : " ready");
    return actor;
  };
  /** Ends it as a container engine does. */
  const stopActor = async (name: string): Promise<void> => {
    const actor = actors.get(name);
    actors.delete(name);
    actor?.kill("SIGTERM");
    assert.strictEqual((await actor?.finished)?.code, 143);
  };
  const health = (node: string, role: string, id = "0") =>
    runJson(["health", role], { environment: { ...environmentOf(node), GODWIT_WORKER: id } });
  const ask = (...args: ReadonlyArray<string>) => runJson([...args, "--nats", nats.url]);

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "godwit-actors-"));
    memory = mkdtempSync("/dev/shm/godwit-actors-");
    nats = await startNats({ storeDir: join(directory, "nats") });
    assert.strictEqual((await run(["setup-nats", "--nats", nats.url])).code, 0);
    await Promise.all([
      startActor("c", "coordinator"),
      startActor("a", "ram-sender"),
      startActor("a", "multifd-worker", "0"),
      startActor("a", "multifd-worker", "1"),
      startActor("a", "node", "0", ...GUEST),
      startActor("b", "launcher"),
      startActor("b", "loader"),
      startActor("b", "node"),
    ]);
  }, START_MS);

  afterAll(async () => {
    await Promise.all([...actors.keys()].map(stopActor));
    for (const pid of processesWith(memory)) process.kill(pid, "SIGTERM");
    await nats.stop();
    rmSync(directory, { recursive: true, force: true });
    rmSync(memory, { recursive: true, force: true });
  });

  it.each([
    ["c", "coordinator", ["bucket godwit_ownership", "bucket godwit_migrations"]],
    ["a", "ram-sender", ["folder", "bucket godwit_ownership"]],
    ["a", "multifd-worker", ["folder"]],
    ["b", "loader", ["folder", "folder", "bucket godwit_ownership"]],
    ["b", "node", ["folder"]],
    ["b", "launcher", ["folder", "folder"]],
  ])("at %s: the %s is healthy, and says what it needs", async (node, role, needs) => {
    const { code, document } = await health(node, role);
    assert.strictEqual(code, 0);
    assert.deepInclude(document, { node, role, healthy: true });
    const whats = document.findings.map(({ what }: { readonly what: string }) => what);
    const ofNats = role === "launcher" ? 0 : 2;
    assert.lengthOf(whats, ofNats + needs.length);
    for (const need of needs) assert.isTrue(whats.some((what: string) => what.startsWith(need)));
  });

  it("an actor that is not there is not healthy, nor is one of another name", async () => {
    const { code, document } = await health("a", "vfio-agent");
    assert.strictEqual(code, 1);
    assert.strictEqual(document.error.code, "unhealthy");
    assert.include(document.error.reason, "vfio-agent of node a does not answer");
    assert.strictEqual((await health("a", "multifd-worker", "2")).code, 1);
    const foreign = { ...environmentOf("a"), GODWIT_NODE: "z" };
    assert.include((await run(["health", "ram-sender"], { environment: foreign })).stderr, "it is node a that answers");
  });

  it("move a guest while a worker is stopped orderly, which nobody waits for", async () => {
    const slow = ["--channels", "2", "--set", "max-bandwidth=1MiB/s"];
    const { document } = await ask("migrate", "vm1", "--to", "b", "--detach", ...slow);
    const watching = start(["watch", document.migration, "--nats", nats.url]);
    await watching.printed("active round 1");
    await stopActor("multifd-worker/a/0");
    // It says that it leaves: nobody has to find out by its silence.
    await actors.get("ram-sender/a/0")?.printed("multifd worker 0 is gone (exited); its channels go to others");
    assert.strictEqual((await health("a", "multifd-worker", "0")).code, 1);
    assert.strictEqual((await ask("set", document.migration, "max-bandwidth=0")).code, 0);
    assert.strictEqual((await watching.finished).code, 0);
    assert.deepInclude((await ask("status", document.migration)).document, { status: "completed", attempts: 1 });
  });

  it("a guest that has arrived is a child of the launcher, and stays when the loader ends that it came by", async () => {
    const [guest = 0] = processesWith(join(memory, "b", "vm1.sock"));
    const status = readFileSync(`/proc/${guest}/status`, "utf8");
    assert.include(status, `PPid:\t${actors.get("launcher/b/0")?.pid}\n`);
    await Promise.all(["loader/b/0", "node/b/0"].map(stopActor));
    await Promise.all([startActor("b", "loader"), startActor("b", "node")]);
    const { document } = await ask("guests");
    assert.deepInclude(document[0], { name: "vm1", node: "b", state: "running" });
  });

  it("without NATS they are not healthy, and say so", async () => {
    const port = nats.port;
    await nats.kill();
    const { code, document } = await health("b", "loader");
    assert.strictEqual(code, 1);
    assert.include(document.error.reason, "NATS, control connection: ");
    nats = await startNats({ storeDir: join(directory, "nats"), port });
  });
});
