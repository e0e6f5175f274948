import { mkdtempSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, assert, beforeEach, describe, it } from "vitest";
import { writeExample } from "../../libs/checkpoint/src/testing.ts";
import { fileAt, wrongWithFile } from "./checkpoint-file.ts";

const directory = mkdtempSync(join(tmpdir(), "godwit-chaos-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const path = join(directory, "guest");
const write = (): Promise<number> => writeExample({ path, blocks: [{ name: "ram0", pages: 4, stored: [1] }] });
const inode = (): number => (fileAt(path) as { readonly inode: number }).inode;

describe("the file of a checkpoint, once a save over it has ended", () => {
  beforeEach(write);

  it("is the old one or the new one, as the save says", async () => {
    const old = inode();
    for (const end of ["failed", "cancelled", "gone"] as const)
      assert.deepStrictEqual(wrongWithFile(path, old, end), []);
    await write();
    for (const end of ["completed", "gone"] as const) assert.deepStrictEqual(wrongWithFile(path, old, end), []);
  });

  it("is found to be another than the save says", async () => {
    const old = inode();
    assert.match(wrongWithFile(path, old, "completed").join(), /the old one is there/);
    assert.match(wrongWithFile(path, old, null).join(), /has not ended/);
    await write();
    assert.match(wrongWithFile(path, old, "failed").join(), /the old one is gone/);
  });

  it("is found to be none, whatever the save says", () => {
    const old = inode();
    truncateSync(path, 100);
    for (const end of ["completed", "failed", "gone"] as const)
      assert.match(wrongWithFile(path, old, end).join(), /it is none any more/);
  });
});
