import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import { withLock } from "../../scripts/lock.mjs";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "godwit-lock-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Starts a process that takes the lock, writes a line when it has it and one before it lets go. */
const contender = (lock: string) => {
  const program = `
    import { appendFileSync } from "node:fs";
    import { setTimeout as sleep } from "node:timers/promises";
    import { withLock } from ${JSON.stringify(new URL("../../scripts/lock.mjs", import.meta.url).href)};
    await withLock(${JSON.stringify(lock)}, () => {}, async () => {
      appendFileSync(${JSON.stringify(join(folder, "log"))}, "in\\n");
      await sleep(20);
      appendFileSync(${JSON.stringify(join(folder, "log"))}, "out\\n");
    });`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: "inherit" });
  return new Promise<number | null>((resolve) => child.once("exit", resolve));
};

describe("the lock of the set-up", () => {
  it("lets one process in at a time", async () => {
    const lock = join(folder, "lock");
    const codes = await Promise.all([contender(lock), contender(lock), contender(lock), contender(lock)]);
    assert.deepStrictEqual(codes, [0, 0, 0, 0]);
    assert.strictEqual(readFileSync(join(folder, "log"), "utf8"), "in\nout\n".repeat(4));
  });

  it("is free again when its holder was killed", async () => {
    const lock = join(folder, "lock");
    const holder = spawn(
      process.execPath,
      [
        "--input-type=module",
        "-e",
        `import { withLock } from ${JSON.stringify(new URL("../../scripts/lock.mjs", import.meta.url).href)};
         await withLock(${JSON.stringify(lock)}, () => {}, () => new Promise(() => console.log("held")));`,
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    await new Promise((resolve) => holder.stdout.once("data", resolve));
    const exited = new Promise((resolve) => holder.once("exit", resolve));
    holder.kill("SIGKILL");
    await exited;
    assert.strictEqual(
      await withLock(
        lock,
        () => assert.fail("waits for the dead"),
        async () => "mine",
      ),
      "mine",
    );
  });

  it("is free again when a holder whose process ids are not ours has been silent for long", async () => {
    const lock = join(folder, "lock");
    writeFileSync(lock, `${process.pid} elsewhere pid:[1]`);
    const longAgo = new Date(Date.now() - 3_600_000);
    utimesSync(lock, longAgo, longAgo);
    assert.strictEqual(
      await withLock(
        lock,
        () => assert.fail("waits for the dead"),
        async () => "mine",
      ),
      "mine",
    );
  });

  it("says once whom it waits for, and goes on when that one lets go", async () => {
    const lock = join(folder, "lock");
    const waited: Array<number> = [];
    let letGo = (): void => {};
    const first = withLock(
      lock,
      () => {},
      () => new Promise<void>((resolve) => (letGo = resolve)),
    );
    const second = withLock(
      lock,
      (pid) => {
        waited.push(pid);
        letGo();
      },
      async () => "mine",
    );
    assert.strictEqual(await second, "mine");
    await first;
    assert.deepStrictEqual(waited, [process.pid]);
  });

  it("is let go of when the work fails", async () => {
    const lock = join(folder, "lock");
    const failed = await withLock(
      lock,
      () => {},
      async () => Promise.reject(new Error("no")),
    ).catch((error: Error) => error.message);
    assert.strictEqual(failed, "no");
    assert.strictEqual(
      await withLock(
        lock,
        () => assert.fail("still held"),
        async () => "mine",
      ),
      "mine",
    );
  });
});
