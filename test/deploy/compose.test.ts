// docker-compose.yml as an operator uses it: everything comes up, a guest moves, actors are stopped and restarted, and all of it goes again.
import { spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, assert, beforeAll, describe, it } from "vitest";
import { baseImage, composeCommand, engineAnswers, natsImage } from "./docker.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** A build that has nothing in its cache installs packages; twenty-five containers start on two cores, ms. */
const BUILD_MS = 300_000;
const UP_MS = 240_000;
const STEP_MS = 120_000;
const IMAGE = "godwit:test";

/** What the tests need of this machine, asked for once: while twenty-five containers start, an answer may take longer than anybody waits. */
interface Tools {
  readonly composeCommand: ReadonlyArray<string>;
  readonly nats: string;
  readonly base: string;
}
const found = ((): Tools | { readonly missing: string } => {
  if (process.env["GODWIT_TEST_DOCKER"] !== "1")
    return { missing: "it takes two minutes; GODWIT_TEST_DOCKER=1 runs it" };
  if (!engineAnswers()) return { missing: "no Docker engine answers" };
  const command = composeCommand();
  if (command === undefined) return { missing: "neither docker compose nor docker-compose is here" };
  const nats = natsImage();
  if ("missing" in nats) return nats;
  const base = baseImage();
  if (base === undefined) return { missing: "no base image is here; deploy/docker/stand-in-images.sh makes one" };
  return { composeCommand: command, nats: nats.image, base };
})();
const isMissing = "missing" in found;
const title = `docker-compose.yml${isMissing ? ` (skipped: ${found.missing})` : ""}`;
const tools: Tools = isMissing ? { composeCommand: [], nats: "", base: "" } : found;

describe.skipIf(isMissing)(title, () => {
  const project = `godwit-test-${process.pid}`;
  const environment: NodeJS.ProcessEnv = {
    ...process.env,
    COMPOSE_PROJECT_NAME: project,
    GODWIT_IMAGE: IMAGE,
    GODWIT_BASE_IMAGE: tools.base,
    GODWIT_NATS_IMAGE: tools.nats,
    GODWIT_GUEST: "vm1=builtin:memory=128MiB,dirty-rate=8MiB/s,vfio=1x4MB",
  };
  const run = (
    command: ReadonlyArray<string>,
  ): Promise<{ readonly code: number; readonly stdout: string; readonly all: string }> =>
    new Promise((resolve, reject) => {
      const [program = "", ...args] = command;
      const child = spawn(program, args, { cwd: ROOT, env: environment, stdio: ["ignore", "pipe", "pipe"] });
      let stdout = "";
      let stderr = "";
      child.stdout.setEncoding("utf8").on("data", (text) => {
        stdout += text;
      });
      child.stderr.setEncoding("utf8").on("data", (text) => {
        stderr += text;
      });
      child.once("error", reject);
      child.once("close", (code) => resolve({ code: code ?? -1, stdout, all: stdout + stderr }));
    });
  const done = async (command: ReadonlyArray<string>): Promise<string> => {
    const { code, stdout, all } = await run(command);
    if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}:\n${all.slice(-4000)}`);
    return stdout;
  };
  const compose = (...args: ReadonlyArray<string>): Promise<string> => done([...tools.composeCommand, ...args]);
  // biome-ignore lint/suspicious/noExplicitAny: tests look at what they expect, and fail at anything else
  const parsed = (text: string): any => JSON.parse(text);
  /** A command of godwit's in a container of its own, as an operator runs it; compose looks at all other containers first. */
  const runCli = async (...args: ReadonlyArray<string>) =>
    parsed(await compose("run", "--rm", "-T", "cli", ...args, "--json"));
  const container = async (service: string): Promise<string> => (await compose("ps", "-q", service)).trim();
  /** The same in a container that is there, where time matters. */
  const godwit = async (...args: ReadonlyArray<string>) =>
    parsed(await done(["docker", "exec", await container("coordinator-1"), "godwit", ...args, "--json"]));
  const guestsOf = async (): Promise<ReadonlyArray<string>> =>
    (await godwit("guests")).map(({ name, node, state }: Record<string, string>) => `${name} ${node} ${state}`);

  beforeAll(async () => {
    await done([
      "docker",
      "build",
      "--quiet",
      "-f",
      join("deploy", "docker", "Dockerfile"),
      "--build-arg",
      `BASE_IMAGE=${tools.base}`,
      "-t",
      IMAGE,
      ".",
    ]);
    await compose("up", "-d", "--no-build");
  }, BUILD_MS + UP_MS);

  afterAll(() => {
    const [program = "", ...args] = tools.composeCommand;
    spawnSync(program, [...args, "down", "-v", "--timeout", "10"], { cwd: ROOT, env: environment, stdio: "ignore" });
  }, STEP_MS);

  it("moves a guest, its memory and its device, as whoever is no root and may nothing", {
    timeout: UP_MS,
  }, async () => {
    // Compose lets it wait until all are healthy.
    const nodes = (await runCli("nodes")).map(({ node }: { readonly node: string }) => node);
    assert.deepStrictEqual(nodes, ["a", "b"]);
    assert.deepStrictEqual(await guestsOf(), ["vm1 a running"]);
    const info = await runCli("migrate", "vm1", "--to", "b", "--channels", "4");
    assert.deepInclude(info, { status: "completed", source: "a", destination: "b", attempts: 1 });
    // Writes are seen by the cheapest tracker that there is: what the containers may is enough for it.
    assert.strictEqual(info["dirty-tracker"], "userfaultfd");
    assert.deepStrictEqual(await guestsOf(), ["vm1 b running"]);
    const user = await done(["docker", "exec", `${await container("b-loader")}`, "node", "-p", "process.getuid()"]);
    assert.strictEqual(user.trim(), "10001");
  });

  const healthy = async (service: string): Promise<void> => {
    const id = await container(service);
    const role = service.replace(/^[ab]-/, "").replace(/^worker-\d$/, "multifd-worker");
    for (;;) {
      const { code } = await run(["docker", "exec", id, "godwit", "health", role]);
      if (code === 0) return;
    }
  };

  it("keeps a guest that has arrived when the loader is killed that it came by", { timeout: STEP_MS }, async () => {
    await done(["docker", "restart", "--time", "0", await container("b-loader")]);
    await healthy("b-loader");
    assert.deepStrictEqual(await guestsOf(), ["vm1 b running"]);
  });

  it("moves it back in one attempt while a worker is stopped", { timeout: STEP_MS }, async () => {
    const { migration } = await godwit(
      "migrate",
      "vm1",
      "--to",
      "a",
      "--channels",
      "4",
      "--set",
      "max-bandwidth=1MiB/s",
      "--detach",
    );
    await done(["docker", "stop", await container("b-worker-0")]);
    await godwit("set", migration, "max-bandwidth=0");
    const info = await godwit("watch", migration);
    assert.deepInclude(info, { status: "completed", destination: "a", attempts: 1 });
    assert.deepStrictEqual(await guestsOf(), ["vm1 a running"]);
    await done(["docker", "start", await container("b-worker-0")]);
  });

  it("says that an actor is not well when its NATS is gone", { timeout: STEP_MS }, async () => {
    const servers = await Promise.all(["nats-1", "nats-2", "nats-3"].map(container));
    await done(["docker", "pause", ...servers]);
    try {
      const { code, all } = await run([
        "docker",
        "exec",
        await container("a-ram-sender"),
        "godwit",
        "health",
        "ram-sender",
      ]);
      assert.strictEqual(code, 1);
      assert.include(all, "NATS, control connection: ");
    } finally {
      await done(["docker", "unpause", ...servers]);
    }
    await healthy("a-ram-sender");
  });
});
