import { spawn } from "node:child_process";
import { assert, describe, it } from "vitest";

/** A process that stands before `program`, as `npm run demo` does before the command line. */
const standingBefore = (program: string) => {
  const wrapper = `
    import { spawn } from "node:child_process";
    import { exitOf } from ${JSON.stringify(new URL("../../scripts/child.mjs", import.meta.url).href)};
    process.exitCode = await exitOf(spawn(process.execPath, ["-e", ${JSON.stringify(program)}], { stdio: "inherit" }));`;
  // A group of its own, like that of a command on a terminal.
  const child = spawn(process.execPath, ["--input-type=module", "-e", wrapper], {
    stdio: ["ignore", "pipe", "inherit"],
    detached: true,
  });
  let output = "";
  const ready = new Promise<void>((resolve) =>
    child.stdout.on("data", (data: Buffer) => {
      output += data.toString();
      if (output.includes("ready")) resolve();
    }),
  );
  const ended = new Promise<{ code: number | null; output: string }>((resolve) =>
    child.once("close", (code) => resolve({ code, output })),
  );
  return { pid: child.pid ?? assert.fail("did not start"), ready, ended };
};

const CLEANS_UP = `
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => {
    console.log("got " + signal);
    setTimeout(() => { console.log("cleaned up"); process.exit(7); }, 50);
  });
  setInterval(() => {}, 1000);
  console.log("ready");`;

describe("a process that stands before another", () => {
  it.each(["SIGINT", "SIGTERM"] as const)("passes %s on and waits for the other's clean-up", async (signal) => {
    const { pid, ready, ended } = standingBefore(CLEANS_UP);
    await ready;
    process.kill(pid, signal);
    assert.deepStrictEqual(await ended, { code: 7, output: `ready\ngot ${signal}\ncleaned up\n` });
  });

  it("outlives Ctrl-C, which reaches both", async () => {
    const { pid, ready, ended } = standingBefore(CLEANS_UP);
    await ready;
    process.kill(-pid, "SIGINT");
    const { code, output } = await ended;
    assert.strictEqual(code, 7);
    assert.include(output, "cleaned up");
  });

  it("ends with the other's exit code, also when a signal ended it", async () => {
    assert.strictEqual((await standingBefore("process.exit(3)").ended).code, 3);
    assert.strictEqual((await standingBefore("process.kill(process.pid, 'SIGKILL')").ended).code, 128 + 9);
  });
});
