import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bitmap } from "@godwit/memory";
import { afterAll, describe, expect, it } from "vitest";
import { createMissingFile, reopenMissingFile } from "./missing-file.ts";

const directory = mkdtempSync(join(tmpdir(), "godwit-missing-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const BLOCKS = [
  { pages: 100, hostPages: 1 },
  { pages: 1024, hostPages: 512 },
];
const pagesIn = (bitmap: Bitmap.Bitmap): number[] =>
  Array.from({ length: bitmap.pageCount }, (_, page) => page).filter((page) => Bitmap.test(bitmap, page));

describe("the pages that are missing", () => {
  it("are found by the next loader as the last one left them, a half-placed host page as missing", () => {
    const path = join(directory, "one");
    const bitmaps = BLOCKS.map(({ pages }) => Bitmap.make(pages));
    Bitmap.setRange(bitmaps[0]!, 7, 3);
    Bitmap.setAll(bitmaps[1]!);
    const file = createMissingFile(path, bitmaps);
    Bitmap.clearRange(file.bitmaps[0]!, 8, 1);
    Bitmap.clearRange(file.bitmaps[1]!, 0, 512);
    Bitmap.clearRange(file.bitmaps[1]!, 512, 64);
    file.close();
    const left = reopenMissingFile(path, BLOCKS)!;
    expect(pagesIn(left.bitmaps[0]!)).toEqual([7, 9]);
    expect(pagesIn(left.bitmaps[1]!)).toEqual(Array.from({ length: 512 }, (_, n) => 512 + n));
    expect(left.atFirst.map(pagesIn)).toEqual([[7, 8, 9], Array.from({ length: 1024 }, (_, n) => n)]);
    left.close();
  });

  it("are not known from a file that is gone, or of another size", () => {
    expect(reopenMissingFile(join(directory, "none"), BLOCKS)).toBeNull();
    writeFileSync(join(directory, "short"), Buffer.alloc(8));
    expect(reopenMissingFile(join(directory, "short"), BLOCKS)).toBeNull();
  });
});
