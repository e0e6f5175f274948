import { closeSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createRamFile } from "@godwit/host";
import { PAGE_BYTES, type RamBlock } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import * as Effect from "effect/Effect";
import { afterAll, assert, describe, it } from "vitest";
import { clearAbsent } from "./clearing.ts";

const directory = mkdtempSync("/dev/shm/godwit-clearing-");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const PAGES = 40_000;
const blockAt = (name: string): RamBlock => ({
  name,
  lengthBytes: PAGES * PAGE_BYTES,
  hostPageBytes: PAGE_BYTES,
  path: join(directory, name),
  fileOffset: 0,
});
/** Every third page, and nothing of the last few hundred. */
const present = Bitmap.make(PAGES);
for (let page = 0; page < PAGES - 300; page += 3) Bitmap.setRange(present, page, 1);

describe("memory that a checkpoint is to fill", () => {
  it("loses what stood where the checkpoint has nothing, and keeps the rest", async () => {
    const block = blockAt("full");
    writeFileSync(block.path, Buffer.alloc(block.lengthBytes, 7));
    await Effect.runPromise(clearAbsent(block, present));
    const content = readFileSync(block.path);
    let wrong = 0;
    for (let page = 0; page < PAGES; page++) {
      const wanted = Bitmap.test(present, page) ? 7 : 0;
      if (content[page * PAGE_BYTES] !== wanted || content[page * PAGE_BYTES + 4095] !== wanted) wrong++;
    }
    assert.strictEqual(wrong, 0);
    assert.strictEqual(statSync(block.path).blocks * 512, Bitmap.count(present) * PAGE_BYTES);
  });

  it("that is a hole stays one", async () => {
    const block = blockAt("fresh");
    closeSync(createRamFile(block.path, block.lengthBytes));
    await Effect.runPromise(clearAbsent(block, present));
    assert.strictEqual(statSync(block.path).blocks, 0);
  });

  it("is left alone beyond its block", async () => {
    const path = join(directory, "shared");
    writeFileSync(path, Buffer.alloc(30 * PAGE_BYTES, 7));
    const block = { ...blockAt("shared"), lengthBytes: 10 * PAGE_BYTES, fileOffset: 10 * PAGE_BYTES };
    await Effect.runPromise(clearAbsent(block, Bitmap.make(10)));
    const content = readFileSync(path);
    assert.isTrue(content.subarray(0, 10 * PAGE_BYTES).every((byte) => byte === 7));
    assert.isTrue(content.subarray(10 * PAGE_BYTES, 20 * PAGE_BYTES).every((byte) => byte === 0));
    assert.isTrue(content.subarray(20 * PAGE_BYTES).every((byte) => byte === 7));
  });

  it("that cannot be opened is named", async () => {
    const error = await Effect.runPromise(Effect.flip(clearAbsent(blockAt("nowhere"), present)));
    assert.strictEqual(error.code, "memory-unreadable");
    assert.include(error.reason, "nowhere");
  });
});
