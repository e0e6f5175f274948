import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { startDetached } from "./detached-process.ts";
import { serveLauncher } from "./launcher.ts";

/** Says its parent's pid and its spec once it is ready, and stays; or ends at once, or says nothing. */
const PROGRAM = `
import { closeSync, writeSync } from "node:fs";
const at = (option) => process.argv[process.argv.indexOf(option) + 1];
const spec = at("--spec");
if (spec === "ends") process.exit(1);
console.log("here is", spec, process.env.HOME ?? "without an environment");
if (spec !== "silent") { writeSync(Number(at("--report-fd")), process.ppid + " " + spec); closeSync(Number(at("--report-fd"))); }
setInterval(() => {}, 1000);
`;

let directory: string;
let entry: string;
let socket: string;
let server: Server | undefined;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "godwit-launcher-"));
  entry = join(directory, "program.mjs");
  socket = join(directory, "launcher");
  writeFileSync(entry, PROGRAM);
  server = await serveLauncher(socket, [entry]);
});
afterEach(() => {
  vi.unstubAllEnvs();
  server?.close();
  rmSync(directory, { recursive: true, force: true });
});

const program = (spec: string) => ({ entry, spec, log: join(directory, "log") });
const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}`);

describe.each(["by itself", "by a launcher"] as const)("a program that outlives its starter, started %s", (way) => {
  beforeEach(() => vi.stubEnv("GODWIT_LAUNCHER", way === "by itself" ? "" : socket));

  it("reports, logs, and ends when it is told to", async () => {
    const started = await startDetached(program("vm1"));
    // The launcher of this test is this process, too.
    expect(await started.report).toBe(`${process.pid} vm1`);
    expect(isAlive(started.pid)).toBe(true);
    started.kill("SIGTERM");
    await started.exited;
    expect(isAlive(started.pid)).toBe(false);
    started.kill("SIGKILL");
    expect(readFileSync(join(directory, "log"), "utf8")).toBe("here is vm1 without an environment\n");
  });

  it("that ends before it is ready has reported nothing", async () => {
    const started = await startDetached(program("ends"));
    await expect(started.report).rejects.toThrow("ended before it was ready");
    await started.exited;
  });

  it("that cannot be started is refused", async () => {
    const nowhere = { ...program("vm1"), log: join(directory, "no such folder", "log") };
    await expect(startDetached(nowhere)).rejects.toThrow("ENOENT");
  });
});

describe("a launcher", () => {
  it("starts nothing but its own programs", async () => {
    vi.stubEnv("GODWIT_LAUNCHER", socket);
    const other = { ...program("vm1"), entry: "/usr/bin/something" };
    await expect(startDetached(other)).rejects.toThrow(/something is no program that it starts/);
  });

  it("ends a program whose starter is gone before it was ready", async () => {
    const client = connect(socket);
    const pid = await new Promise<number>((resolve) => {
      client.once("data", (line) => resolve(JSON.parse(String(line)).pid));
      client.write(`${JSON.stringify(program("silent"))}\n`);
    });
    expect(isAlive(pid)).toBe(true);
    client.destroy();
    await vi.waitUntil(() => !isAlive(pid), { timeout: 30_000 });
  });

  it("answers what is no request, and is there for the next one", async () => {
    const answer = await new Promise<string>((resolve) => {
      const client = connect(socket);
      client.once("data", (line) => resolve(String(line)));
      client.write("what?\n");
    });
    expect(answer).toContain("failed");
    vi.stubEnv("GODWIT_LAUNCHER", socket);
    const started = await startDetached(program("vm2"));
    expect(await started.report).toContain("vm2");
    started.kill("SIGKILL");
    await started.exited;
  });

  it("that is not there is named in the refusal", async () => {
    vi.stubEnv("GODWIT_LAUNCHER", join(directory, "nobody"));
    await expect(startDetached(program("vm1"))).rejects.toThrow(/the launcher at .*nobody: .*ENOENT/);
  });
});
