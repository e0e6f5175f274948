import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { decodeWorkItem, encodeWorkItem, readId } from "@godwit/protocol";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { blockExport, deviceStateExport, exportBlocks, withdrawExports } from "./memory-export.ts";
import type { RamBlock } from "./ram-block.ts";

const MIGRATION = "0123456789abcdef";

let directory: string;
let runtime: string;
beforeEach(() => {
  directory = mkdtempSync("/tmp/godwit-export-");
  runtime = join(directory, "run");
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const blockAt = (name: string, content: string): RamBlock => {
  const path = join(directory, name);
  writeFileSync(path, content);
  return { name, lengthBytes: 4096, hostPageBytes: 4096, path, fileOffset: 0 };
};
const contentOf = (epoch: number, block: number): string =>
  readFileSync(blockExport(runtime, MIGRATION, epoch, block), "utf8");

describe("the export of a guest's memory", () => {
  it("leads from a block's number to its file, for this migration and epoch alone", () => {
    exportBlocks(runtime, MIGRATION, 3, [blockAt("one", "first"), blockAt("two", "second")]);
    expect(contentOf(3, 0)).toBe("first");
    expect(contentOf(3, 1)).toBe("second");
    expect(existsSync(blockExport(runtime, MIGRATION, 3, 2))).toBe(false);
    expect(existsSync(blockExport(runtime, MIGRATION, 2, 0))).toBe(false);
    expect(existsSync(blockExport(runtime, "f".repeat(16), 3, 0))).toBe(false);
  });

  it("can be made again, and then leads to what is exported now", () => {
    exportBlocks(runtime, MIGRATION, 1, [blockAt("one", "first")]);
    exportBlocks(runtime, MIGRATION, 1, [blockAt("two", "second")]);
    expect(contentOf(1, 0)).toBe("second");
  });

  it("is for this user's eyes only", () => {
    exportBlocks(runtime, MIGRATION, 1, [blockAt("one", "first")]);
    expect(lstatSync(join(runtime, "ram", MIGRATION)).mode & 0o777).toBe(0o700);
  });

  it("is gone when it was withdrawn, device state included, and leaves the memory and other migrations alone", () => {
    const block = blockAt("one", "first");
    const other = "f".repeat(16);
    exportBlocks(runtime, MIGRATION, 1, [block]);
    exportBlocks(runtime, other, 1, [block]);
    writeFileSync(deviceStateExport(runtime, MIGRATION, 1), "device state");
    withdrawExports(runtime, MIGRATION);
    withdrawExports(runtime, MIGRATION);
    expect(readdirSync(join(runtime, "ram"))).toEqual([other]);
    expect(readFileSync(block.path, "utf8")).toBe("first");
  });

  it("throws what the file system throws when it cannot be made", () => {
    mkdirSync(runtime, { recursive: true });
    writeFileSync(join(runtime, "ram"), "a file where the directory should be");
    expect(() => exportBlocks(runtime, MIGRATION, 1, [])).toThrow(/ENOTDIR|EEXIST/);
  });
});

describe("whatever a work item names", () => {
  it("is a file right below the migration's own export directory", () => {
    const eightBytes = fc.uint8Array({ minLength: 8, maxLength: 8 });
    const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(eightBytes, u32, fc.nat(0xffff), (id, epoch, block) => {
        // Any eight bytes of the wire become 16 hex digits: no dot and no slash can come out of them.
        const migration = readId(new DataView(id.buffer, id.byteOffset, 8), 0);
        expect(migration).toMatch(/^[0-9a-f]{16}$/);
        const home = join(runtime, "ram", migration);
        for (const path of [
          blockExport(runtime, migration, epoch, block),
          deviceStateExport(runtime, migration, epoch),
        ])
          expect(relative(home, path)).toMatch(/^\d+-(\d+|device)$/);
      }),
    );
  });

  it("comes from numbers only: a forged item has no place for a path", () => {
    const item = encodeWorkItem({
      kind: "pages",
      // Not an id at all: what is written is a number, and what is read is 16 hex digits.
      migration: "../../../../etc/",
      epoch: 1,
      round: 1,
      item: 0,
      channel: 0,
      channelEpoch: 1,
      compression: "none",
      level: 0,
      lane: "nats",
      deadline: 0,
      block: 0,
      fileOffset: 0,
      zeroPages: "worker",
      xbzrle: null,
      runs: Uint32Array.of(0, 1),
    });
    const decoded = decodeWorkItem(item);
    if (decoded.kind === "malformed") return;
    expect(decoded.migration).toMatch(/^[0-9a-f]{16}$/);
  });
});
