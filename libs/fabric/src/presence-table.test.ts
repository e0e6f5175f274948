import { describe, expect, it } from "vitest";
import { type Member, SILENT_MS } from "./fabric.ts";
import { PresenceTable } from "./presence-table.ts";

const life = (incarnation: string): Member => ({ role: "r", node: "n", id: "i", incarnation });
const tags = (table: PresenceTable) =>
  table
    .changes()
    .map((event) => `${event._tag} ${event.member.incarnation}${event._tag === "Down" ? ` ${event.why}` : ""}`);

describe("PresenceTable", () => {
  it("tells each change once", () => {
    const table = new PresenceTable();
    expect(table.beat(life("a"), 1, 0)).toBe(true);
    expect(table.beat(life("a"), 1, 100)).toBe(false);
    expect(tags(table)).toEqual(["Up a"]);
    expect(tags(table)).toEqual([]);
  });

  it("judges silence from the last beat, or from when the watcher could hear again", () => {
    const table = new PresenceTable();
    table.beat(life("a"), 1, 1_000);
    expect(table.judge(1_000 + SILENT_MS, 0)).toBe(false);
    expect(table.judge(1_001 + SILENT_MS, 500 + SILENT_MS)).toBe(false);
    expect(table.judge(1_001 + SILENT_MS, 0)).toBe(true);
    expect(tags(table)).toEqual([]);
    table.beat(life("a"), 1, 3_000);
    expect(tags(table)).toEqual(["Up a"]);
  });

  it("a slow reader sees the last state, not the changes that cancelled each other", () => {
    const table = new PresenceTable();
    table.beat(life("a"), 1, 0);
    tags(table);
    table.judge(10_000, 0);
    table.beat(life("a"), 1, 10_001);
    expect(tags(table)).toEqual([]);
    table.exited(life("a"), 1, 10_002);
    table.beat(life("b"), 2, 10_003);
    expect(tags(table)).toEqual(["Down a exited", "Up b"]);
  });

  it("neither an exited incarnation nor one that was followed by a later one comes back", () => {
    const table = new PresenceTable();
    table.exited(life("a"), 0, 0);
    table.beat(life("a"), 1, 1);
    expect(tags(table)).toEqual([]);
    table.beat(life("c"), 3, 2);
    table.beat(life("b"), 2, 3);
    table.exited(life("b"), 2, 4);
    expect(tags(table)).toEqual(["Up c"]);
  });

  it("a member that was silent and then replaced went down as silent", () => {
    const table = new PresenceTable();
    table.beat(life("a"), 1, 0);
    tags(table);
    table.judge(10_000, 0);
    table.beat(life("b"), 2, 10_001);
    expect(tags(table)).toEqual(["Down a silent", "Up b"]);
  });
});
