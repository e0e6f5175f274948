// Lines that cannot be carried out, and help. Nothing is started here.
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { assert, describe, it } from "vitest";
import { ROOT, run, runJson } from "./godwit-process.ts";

/** Nobody listens on TCP port 1. */
const NOWHERE = ["--nats", "nats://127.0.0.1:1"];

describe("help", () => {
  it("lists the commands, and is the same by every name", async () => {
    const [help, dashed] = await Promise.all([run(["help"]), run(["--help"])]);
    assert.strictEqual(help.code, 0);
    for (const name of ["demo", "up", "node", "migrate", "status", "doctor"])
      assert.match(help.stdout, new RegExp(`^ {2}${name} `, "m"));
    assert.strictEqual(dashed.stdout, help.stdout);
  });

  it("of a command shows its options, their variables, and the names of parameters", async () => {
    const [{ stdout }, flagged] = await Promise.all([run(["help", "migrate"]), run(["migrate", "--help"])]);
    for (const word of ["--to NODE", "GODWIT_TO", "GODWIT_NATS", "downtime-limit", "pause-before-switchover"]) {
      assert.include(stdout, word);
    }
    assert.strictEqual(flagged.stdout, stdout);
  });

  it("shows the version, also by the way that npx takes", async () => {
    const { stdout } = await run(["--version"]);
    assert.match(stdout, /^godwit \d+\.\d+\.\d+\n$/);
    const { document } = await runJson(["--version"]);
    assert.strictEqual(stdout, `godwit ${document["godwit-version"]}\n`);
    const wrapper = join(ROOT, "services/cli/bin/godwit.mjs");
    assert.strictEqual(execFileSync(process.execPath, [wrapper, "--version"], { encoding: "utf8" }), stdout);
  });
});

describe("a line that cannot be read", () => {
  it.each([
    ["nothing at all", [], "a command is missing"],
    ["a command that there is not", ["postcopy"], 'there is no command "postcopy"; there are: demo, '],
    ["help for a command that there is not", ["help", "postcopy"], "there is no command"],
    ["an option that there is not", ["demo", "--memori", "1GiB"], "Unknown option '--memori'"],
    ["a size that is none", ["demo", "--memory", "lots"], '--memory: "lots" is not a size'],
    ["a migration without a guest", ["migrate"], "godwit migrate GUEST --to NODE"],
    ["a migration without a destination", ["migrate", "vm1"], "--to is missing"],
    ["a setting without a value", ["migrate", "vm1", "--to", "b", "--set", "downtime-limit"], "not NAME=VALUE"],
    ["a guest that is none", ["node", "--guest", "vm1=xen:1"], "not NAME=qemu:SOCKET"],
    ["a node's name that could not stand in a subject", ["node", "--name", "a.b"], "the node's name"],
    ["an id that is none", ["status", "newest"], "16 hex digits"],
    ["giving up nothing in particular", ["give-up", "--yes"], "godwit give-up MIGRATION"],
    ["giving up without a yes", ["give-up", "0123456789abcdef"], "--yes is missing"],
    ["one word too many", ["nodes", "a"], '"a" is too much'],
    [
      "credentials of no kind",
      ["credentials", "make", "/nowhere"],
      '"make" is none of init, node, role, server, revoke',
    ],
    ["a node called like a role", ["credentials", "node", "/nowhere", "admin"], "which is a role"],
  ])("%s", async (_, args, reason) => {
    const text = await run(args);
    assert.strictEqual(text.code, 2, text.stderr);
    assert.strictEqual(text.stdout, "");
    assert.include(text.stderr, "godwit: usage: ");
    assert.include(text.stderr, reason);
  });

  it("is an error as JSON, too", async () => {
    const { code, document } = await runJson(["demo", "--memory", "lots"]);
    assert.strictEqual(code, 2);
    assert.strictEqual(document.error.code, "usage");
    assert.include(document.error.remedy, "godwit help");
  });

  it("names the variable that is wrong", async () => {
    const { code, stderr } = await run(["demo"], { environment: { GODWIT_MEMORY: "lots" } });
    assert.strictEqual(code, 2);
    assert.include(stderr, "GODWIT_MEMORY");
  });
});

describe("a command without NATS", () => {
  it.each([[["migrate", "vm1", "--to", "b"]], [["status"]], [["guests"]], [["nodes"]], [["cancel"]]])(
    "fails at once: %s",
    async (args) => {
      const { code, document } = await runJson([...args, ...NOWHERE]);
      assert.strictEqual(code, 1);
      assert.strictEqual(document.error.code, "nats-unreachable");
      assert.include(document.error.remedy, "GODWIT_NATS");
    },
  );

  it("shows no password", async () => {
    const { stdout, stderr } = await run(["status", "--nats", "nats://me:secret@127.0.0.1:1"]);
    assert.notInclude(stdout + stderr, "secret");
  });
});
