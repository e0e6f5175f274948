// Ctrl-C at any moment: nothing that was started may stay.
import { assert, describe, it } from "vitest";
import { leftovers, NOTHING, start } from "./godwit-process.ts";

const SLOW = ["demo", "--memory", "64MiB", "--max-bandwidth", "8MiB/s"];

describe("a demo that is interrupted", () => {
  it.each([
    { when: "in the middle of the migration", text: "active round 1", signal: "SIGINT", code: 130 },
    { when: "while it starts everything", text: "starting NATS", signal: "SIGINT", code: 130 },
    { when: "by a supervisor", text: "active round 1", signal: "SIGTERM", code: 143 },
  ] as const)("leaves no process and no file: $signal $when", async ({ text, signal, code }) => {
    // As a job of its own: a terminal sends Ctrl-C to actors and NATS as well.
    const demo = start(SLOW, { job: signal === "SIGINT" });
    await demo.printed(text);
    demo.kill(signal);
    const ended = await demo.finished;
    assert.strictEqual(ended.code, code, ended.stderr);
    assert.deepStrictEqual(leftovers("demo", demo.pid), NOTHING);
  });

  it("is put away by the next one when it was killed", async () => {
    const killed = start(SLOW);
    await killed.printed("active round 1");
    killed.kill("SIGKILL");
    await killed.finished;
    assert.isNotEmpty(leftovers("demo", killed.pid).processes);
    const next = start(["demo", "--memory", "16MiB", "--max-bandwidth", "0"]);
    assert.strictEqual((await next.finished).code, 0);
    assert.deepStrictEqual(leftovers("demo", killed.pid), NOTHING);
    assert.deepStrictEqual(leftovers("demo", next.pid), NOTHING);
  });

  it("prints one document all the same", async () => {
    const demo = start([...SLOW, "--json"]);
    await demo.printed("active round 1");
    demo.kill("SIGINT");
    const { stdout } = await demo.finished;
    assert.deepInclude(JSON.parse(stdout).error, { code: "cancelled", reason: "the command was ended by SIGINT" });
  });
});
