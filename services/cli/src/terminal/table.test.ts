import { assert, describe, it } from "vitest";
import { table } from "./table.ts";

describe("a table", () => {
  it("lines its columns up and leaves no trailing spaces", () => {
    const columns = [{ title: "GUEST" }, { title: "RAM", align: "right" as const }, { title: "STATE" }];
    const rows = [
      ["vm1", "512 MiB", "running"],
      ["müller", "1 GiB", ""],
    ];
    assert.strictEqual(table(columns, rows), "GUEST       RAM  STATE\nvm1     512 MiB  running\nmüller    1 GiB\n");
  });

  it("shows its titles when it has no rows", () => {
    assert.strictEqual(table([{ title: "NODE" }], []), "NODE\n");
  });
});
