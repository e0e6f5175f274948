import type { CheckpointInfo } from "@godwit/protocol";
import { assert, describe, it } from "vitest";
import { checkpointsTable } from "./status-text.ts";

const MIB = 1024 ** 2;
const info = {
  id: "0123456789abcdef",
  what: "restore",
  guest: "vm1",
  node: "b",
  uri: "file:vm1",
  status: "postcopy-active",
  "total-time": 2000,
  total: 64 * MIB,
  remaining: 48 * MIB,
  "dirty-sync-count": 1,
  transferred: 16 * MIB,
  mbps: (8 * MIB * 8) / 1e6,
} as CheckpointInfo;

describe("saves and restores as text", () => {
  it("are a line each, and nothing when there are none", () => {
    const [titles, line, ...rest] = checkpointsTable([info]).trimEnd().split("\n");
    assert.match(titles!, /^CHECKPOINT .*GUEST .*NODE .*STATUS .*TIME .*MOVED .*LEFT .*RATE$/);
    assert.match(
      line!,
      /^0123456789abcdef +restore +vm1 +b +postcopy-active +2.00 s +16.0 MiB +48.0 MiB +8.00 MiB\/s$/,
    );
    assert.deepStrictEqual(rest, []);
    assert.strictEqual(checkpointsTable([]), "");
  });

  it("say what keeps one from going on, and no rate that nobody has told", () => {
    const { mbps: _, ...older } = info;
    const error = { code: "checkpoint-failed", actor: "loader", step: "bring", reason: "it was replaced" } as const;
    const lines = checkpointsTable([{ ...older, error }])
      .trimEnd()
      .split("\n");
    assert.match(lines[1]!, /48.0 MiB$/);
    assert.strictEqual(lines[2], "0123456789abcdef: it was replaced");
  });
});
