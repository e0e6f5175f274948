import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as Bitmap from "../bitmap.ts";
import { PAGE_BYTES } from "../ram-block.ts";
import { openContentPool } from "./content-pool.ts";
import { createShadowFile } from "./shadow-file.ts";

const PAGES = 8192;
let directory: string;
beforeAll(() => {
  directory = mkdtempSync("/dev/shm/godwit-pool-");
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** What this process holds of files in the directory, open or mapped. */
const held = (): ReadonlyArray<string> => [
  ...readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .filter((line) => line.includes(directory)),
  ...readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(directory) ? [path] : [];
    } catch {
      return [];
    }
  }),
];

const openPool = () => {
  const path = join(directory, "ram");
  writeFileSync(path, Buffer.alloc(PAGES * PAGE_BYTES, 1));
  const shadow = createShadowFile(directory, PAGES * PAGE_BYTES);
  const block = { name: "ram0", lengthBytes: PAGES * PAGE_BYTES, hostPageBytes: PAGE_BYTES, path, fileOffset: 0 };
  const pool = openContentPool([{ block, shadowPath: shadow.path, present: Bitmap.makeShared(PAGES) }]);
  return { pool, shadow };
};

describe("threads that compare a guest with its shadow", () => {
  it("leave nothing mapped or open behind: an actor that lives on would keep the memory of each guest that was moved", async () => {
    const { pool, shadow } = openPool();
    let pages = 0;
    await pool.scan("changes", (_, __, count) => {
      pages += count;
    });
    expect(pages).toBe(PAGES);
    expect(held().filter((line) => line.includes(shadow.path))).not.toEqual([]);
    await pool.close();
    shadow.remove();
    expect(held()).toEqual([]);
  });

  it("nor when they are ended in the middle of a scan, or before their first", async () => {
    for (const when of ["scanning", "at rest"]) {
      const { pool, shadow } = openPool();
      const scanned = when === "scanning" ? pool.scan("everything", () => {}).catch(() => {}) : null;
      await pool.close();
      await scanned;
      shadow.remove();
      expect(held()).toEqual([]);
    }
  });
});
