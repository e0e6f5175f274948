import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { pathToFileURL } from "node:url";
import * as Effect from "effect/Effect";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import { encodeDiagnosisRequest } from "./diagnosis.ts";
import { diagnose } from "./judge.ts";
import { type StartedDevice, startSimulated } from "./launch.ts";

describe("the process of a simulated device", () => {
  let directory = "";
  const started: Array<StartedDevice> = [];
  const start = async (name: string, ownerPid?: number): Promise<StartedDevice> => {
    const owner = ownerPid === undefined ? {} : { ownerPid };
    const device = await Effect.runPromise(startSimulated({ name, stateBytes: 100_000 }, directory, owner));
    started.push(device);
    return device;
  };
  /** A connection to the device, which ends with it. */
  const watch = async (socket: string): Promise<{ readonly ended: Promise<unknown> }> => {
    const connection = connect(socket);
    const ended = once(connection, "close");
    connection.write(encodeDiagnosisRequest(1));
    await once(connection, "data");
    return { ended };
  };
  const failure = (effect: Effect.Effect<unknown, unknown>) => Effect.runPromise(Effect.flip(effect));

  beforeEach(() => {
    directory = mkdtempSync("/dev/shm/godwit-process-");
  });
  afterEach(async () => {
    for (const device of started.splice(0)) await Effect.runPromise(device.stop);
    rmSync(directory, { recursive: true });
  });

  it("listens once it is started, and takes its socket with it when it is stopped", async () => {
    const device = await start("nic0");
    assert.strictEqual((await Effect.runPromise(diagnose(device.spec))).state, "RUNNING");
    await Effect.runPromise(device.stop);
    assert.isFalse(existsSync(device.spec.socket));
    assert.deepInclude(await failure(diagnose(device.spec)), { _tag: "DeviceError", errno: "ENOENT" });
  });

  it("is the only one of its name, until it is killed", async () => {
    const device = await start("nic0");
    assert.deepInclude(await failure(startSimulated({ name: "nic0", stateBytes: 1 }, directory)), { errno: "EEXIST" });
    const { ended } = await watch(device.spec.socket);
    process.kill(device.pid, "SIGKILL");
    await ended;
    assert.isTrue(existsSync(device.spec.socket));
    await start("nic0");
  });

  it("is not started with what is no spec", async () => {
    const refused = (options: object) =>
      failure(startSimulated({ name: "nic0", stateBytes: 1, ...options } as never, directory));
    assert.deepInclude(await refused({ stateBytes: -1 }), { errno: "EINVAL" });
    assert.match(String(await refused({ faults: [{ at: "RUNNING->NOWHERE", kind: "EIO" }] })), /NOWHERE/);
    assert.deepInclude(await refused({ initialBytes: 2 }), { errno: "EINVAL" });
    assert.match(String(await refused({ arcLatencyMs: { "RUNNING->STOP": 5 } })), /never walks RUNNING->STOP/);
    assert.deepInclude(await failure(startSimulated({ name: "nic0", stateBytes: 1 }, "somewhere")), {
      errno: "EINVAL",
    });
  });

  it("ends with its owner, who need not be who started it", async () => {
    const owner = spawn("sleep", ["60"]);
    const device = await start("nic0", owner.pid);
    const { ended } = await watch(device.spec.socket);
    owner.kill("SIGKILL");
    await ended;
    assert.isFalse(existsSync(device.spec.socket));
  });

  it("ends with who started it", async () => {
    const program = [
      `import * as Effect from "effect/Effect";`,
      `import { startSimulated } from ${JSON.stringify(new URL("./launch.ts", pathToFileURL(import.meta.filename)).href)};`,
      `await Effect.runPromise(startSimulated({ name: "nic0", stateBytes: 1000 }, ${JSON.stringify(directory)}));`,
      `console.log("started");`,
      `setInterval(() => {}, 1000);`,
    ].join("\n");
    const starter = spawn(process.execPath, ["--input-type=module", "-e", program], {
      cwd: import.meta.dirname,
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(starter.stdout, "data");
    const socket = `${directory}/nic0.device.sock`;
    const { ended } = await watch(socket);
    starter.kill("SIGKILL");
    await ended;
    assert.isFalse(existsSync(socket));
  });
});
