import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, describe, it } from "vitest";
import { confine, parsePlace } from "./folder.ts";

const outer = realpathSync(mkdtempSync(join(tmpdir(), "godwit-folder-")));
afterAll(() => rmSync(outer, { recursive: true, force: true }));
const folder = join(outer, "checkpoints");
mkdirSync(join(folder, "deep"), { recursive: true });
writeFileSync(join(outer, "secret"), "");
symlinkSync(outer, join(folder, "out"));
symlinkSync(join(outer, "secret"), join(folder, "link"));

describe("a checkpoint's file", () => {
  it.each([
    ["vm1", "vm1"],
    ["deep/vm1", "deep/vm1"],
    ["deep/../vm1", "vm1"],
    [join(folder, "vm1"), "vm1"],
  ])("may be %s", (asked, found) => {
    assert.deepStrictEqual(confine(folder, asked), { path: join(folder, found) });
  });

  it.each([
    "../secret",
    "/etc/passwd",
    "deep/../../secret",
    "out/secret",
    "link",
    "deep",
    ".hidden",
    "",
    "missing/vm1",
    `${folder}2/vm1`,
  ])("may not be %s", (asked) => {
    assert.property(confine(folder, asked), "wrong");
  });
});

describe("a place of a checkpoint", () => {
  it("is a file with an offset or without, or an object", () => {
    assert.deepStrictEqual(parsePlace("file:/backup/vm1"), { kind: "file", path: "/backup/vm1", start: 0 });
    assert.deepStrictEqual(parsePlace("file:vm1,offset=0x1234"), { kind: "file", path: "vm1", start: 0x1234 });
    assert.deepStrictEqual(parsePlace("nats-object:backups/vm1.godwit"), {
      kind: "object",
      bucket: "backups",
      name: "vm1.godwit",
    });
  });

  it.each(["tcp:host:1", "exec:cat", "file:", "file:a,offset=x", "nats-object:b", "nats-object:b/../c", "vm1"])(
    "is not %s",
    (uri) => {
      assert.property(parsePlace(uri), "wrong");
    },
  );
});
