import { assert, describe, it } from "vitest";
import { humanLine } from "./human-line.ts";

const line = (message: string, fields: Record<string, unknown>): string =>
  humanLine({
    time: new Date("2030-01-02T03:04:05.678Z"),
    level: "warn",
    message,
    fields: { actor: "loader", node: "b", ...fields },
  });

describe("a line for the eye", () => {
  it("says time, level, actor, node, message and fields", () => {
    assert.strictEqual(
      line("packet refused", { pid: 7, migration: "m1", why: "old epoch", counts: { late: 2 } }),
      '03:04:05.678 warn  loader[b] packet refused migration=m1 why="old epoch" counts={"late":2}\n',
    );
  });

  it("puts an expected error behind the fields and an unexpected one with its stack", () => {
    assert.strictEqual(
      line("stopped", { err: { type: "Full", message: "no space\n  in /x" } }),
      "03:04:05.678 warn  loader[b] stopped\n    Full: no space\n      in /x\n",
    );
    assert.match(
      line("stopped", { err: { type: "TypeError", message: "x", stack: "TypeError: x\n    at f" } }),
      /\n {4}TypeError: x\n {8}at f/,
    );
  });

  it("shows control characters and does not send them to the terminal", () => {
    const shown = line("guest says \u001b[2J\r\u009b", { name: "a\u001b[0m" });
    assert.notMatch(shown.trimEnd(), /\p{Cc}/u);
    assert.include(shown, "\\x1b[2J\\x0d\\x9b");
  });
});
