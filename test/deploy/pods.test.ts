// What the pods of deploy/kubernetes run, with their words, variables and probes, but on this machine: they move a guest.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import type { IContainer } from "kubernetes-models/v1";
import { afterAll, assert, beforeAll, describe, it } from "vitest";
import { processesWith, run, runJson, type Started, start } from "../cli/godwit-process.ts";
import { containersOf, KUBERNETES, manifestsIn } from "./manifest.ts";

/** Nine processes start on a machine that may be busy, ms. */
const START_MS = 120_000;

const containersIn = (path: string): ReadonlyArray<IContainer> =>
  containersOf(manifestsIn(readFileSync(join(KUBERNETES, path), "utf8"))[0]!);
const [coordinator] = containersIn("base/coordinator/deployment.yaml");
/** A source and a destination each need what they need, and more workers would only make this test slower. */
const inHosts = (...names: ReadonlyArray<string>): ReadonlyArray<IContainer> =>
  containersIn("base/hosts/daemon-set.yaml").filter(({ name }) => names.includes(name));

describe("what the pods run", () => {
  let directory: string;
  let memory: string;
  let nats: LocalNats;
  const running: Array<{ readonly host: string; readonly container: IContainer; readonly actor: Started }> = [];

  /** A container's variables, with this machine's places for those of a host. */
  const environmentOf = (host: string, { env = [], envFrom }: IContainer): Record<string, string> => ({
    ...(envFrom === undefined ? {} : { GODWIT_NATS: nats.url }),
    ...Object.fromEntries(
      env.map(({ name, value = host }) => [
        name,
        value
          .replace("/run/godwit", join(directory, host))
          .replace("/dev/shm/godwit", join(memory, host))
          .replace("/var/lib/godwit", join(directory, host, "lib")),
      ]),
    ),
  });
  const startContainer = async (host: string, container: IContainer): Promise<void> => {
    const actor = start(container.args ?? [], { environment: environmentOf(host, container) });
    running.push({ host, container, actor });
    await actor.printed(" ready");
  };
  /** A command that the kubelet would execute in the container; `godwit` is its first word. */
  const execute = (host: string, container: IContainer, command: ReadonlyArray<string> = []) => {
    assert.strictEqual(command[0], "godwit");
    return run(command.slice(1), { environment: environmentOf(host, container) });
  };
  const hostContainer = (host: string, name: string) =>
    running.find((one) => one.host === host && one.container.name === name)!.container;

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "godwit-pods-"));
    memory = mkdtempSync("/dev/shm/godwit-pods-");
    nats = await startNats({ storeDir: join(directory, "nats") });
    assert.strictEqual((await run(["setup-nats", "--nats", nats.url])).code, 0);
    await Promise.all([
      startContainer("c", coordinator!),
      ...inHosts("node", "ram-sender", "vfio-agent", "multifd-worker-0", "multifd-worker-1").map((container) =>
        startContainer("a", container),
      ),
      ...inHosts("node", "loader").map((container) => startContainer("b", container)),
    ]);
  }, START_MS);

  afterAll(async () => {
    for (const { actor } of running) actor.kill("SIGTERM");
    await Promise.all(running.map(({ actor }) => actor.finished));
    for (const pid of processesWith(memory)) process.kill(pid, "SIGTERM");
    await nats.stop();
    rmSync(directory, { recursive: true, force: true });
    rmSync(memory, { recursive: true, force: true });
  });

  it("is found ready by the probes, each container by its own", async () => {
    const probed = await Promise.all(
      running.map(({ host, container }) => execute(host, container, container.readinessProbe?.exec?.command)),
    );
    for (const { code, stderr } of probed) assert.strictEqual(code, 0, stderr);
  });

  it("moves a guest that was registered, and is idle afterwards", async () => {
    const node = hostContainer("a", "node");
    const guest = ["godwit", "register", "vm1=builtin:memory=32MiB,dirty-rate=2MiB/s"];
    const registered = await execute("a", node, guest);
    assert.strictEqual(registered.code, 0, registered.stderr);
    const { code, document } = await runJson(["migrate", "vm1", "--to", "b", "--nats", nats.url]);
    assert.strictEqual(code, 0);
    assert.strictEqual(document.status, "completed");
    const sender = hostContainer("a", "ram-sender");
    const idle = await execute("a", sender, sender.lifecycle?.preStop?.exec?.command);
    assert.strictEqual(idle.code, 0, idle.stderr);
  });
});
