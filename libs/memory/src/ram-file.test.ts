import { spawnSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { createRamFile } from "@godwit/host";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RamFileError } from "./errors.ts";
import { PAGE_BYTES, type RamBlock } from "./ram-block.ts";
import { openRamReader, openRamWriter } from "./ram-file.ts";

const PAGES = 64;
/** The block begins behind two pages of somebody else's, which must stay as they are. */
const FILE_OFFSET = 2 * PAGE_BYTES;

let directory: string;
let block: RamBlock;

beforeEach(() => {
  directory = mkdtempSync("/dev/shm/godwit-ram-file-");
  const path = join(directory, "ram");
  closeSync(createRamFile(path, FILE_OFFSET + (PAGES + 1) * PAGE_BYTES));
  block = { name: "ram", lengthBytes: PAGES * PAGE_BYTES, hostPageBytes: PAGE_BYTES, path, fileOffset: FILE_OFFSET };
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const pagesOf = (value: number, pages: number) => Buffer.alloc(pages * PAGE_BYTES, value);
const allocatedPages = () => (statSync(block.path).blocks * 512) / PAGE_BYTES;
const failure = (body: () => void): unknown => {
  try {
    body();
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
};

describe("a RAM file", () => {
  it("gives back the pages that were written, at any offset of the packet", () => {
    const writer = openRamWriter(block);
    const reader = openRamReader(block);
    writer.writePages(3, 2, Buffer.concat([Buffer.alloc(16), pagesOf(7, 1), pagesOf(8, 1)]), 16);
    const target = Buffer.alloc(100 + 4 * PAGE_BYTES, 0xff);
    reader.readPages(2, 4, target, 100);
    expect(target.subarray(100)).toEqual(Buffer.concat([pagesOf(0, 1), pagesOf(7, 1), pagesOf(8, 1), pagesOf(0, 1)]));
    expect(target.subarray(0, 100)).toEqual(Buffer.alloc(100, 0xff));
    writer.close();
    reader.close();
  });

  it("never reads or writes outside its block, whatever the numbers say", () => {
    const writer = openRamWriter(block);
    const reader = openRamReader(block);
    const bytes = pagesOf(9, PAGES);
    const numbers = [
      [-1, 1],
      [PAGES, 1],
      [0, PAGES + 1],
      [PAGES - 1, 2],
      [0, -1],
      [0.5, 1],
      [Number.NaN, 1],
      [2 ** 53, 1],
    ] as const;
    for (const [first, pages] of numbers) {
      expect(() => writer.writePages(first, pages, bytes, 0)).toThrow(RangeError);
      expect(() => writer.zeroPages(first, pages)).toThrow(RangeError);
      expect(() => reader.readPages(first, pages, bytes, 0)).toThrow(RangeError);
    }
    expect(() => writer.writePages(0, 2, pagesOf(1, 2), 1)).toThrow(RangeError);
    expect(() => reader.readPages(0, 1, bytes, -1)).toThrow(RangeError);
    expect(allocatedPages()).toBe(0);
    writer.close();
    reader.close();
  });

  it("frees the memory of pages that become zero, and allocates none for zeroing holes", () => {
    const writer = openRamWriter(block);
    writer.writePages(0, 8, pagesOf(1, 8), 0);
    writer.zeroPages(2, PAGES - 2);
    expect(allocatedPages()).toBe(2);
    const reader = openRamReader(block);
    const target = pagesOf(5, 4);
    reader.readPages(0, 4, target, 0);
    expect(target).toEqual(Buffer.concat([pagesOf(1, 2), pagesOf(0, 2)]));
    writer.close();
    reader.close();
  });

  it("tells where data is, and that reading holes allocates nothing", () => {
    const writer = openRamWriter(block);
    writer.writePages(10, 3, pagesOf(1, 3), 0);
    writer.writePages(PAGES - 1, 1, pagesOf(1, 1), 0);
    const reader = openRamReader(block);
    expect(reader.nextDataRun(0)).toEqual({ first: 10, count: 3 });
    expect(reader.nextDataRun(11)).toEqual({ first: 11, count: 2 });
    expect(reader.nextDataRun(13)).toEqual({ first: PAGES - 1, count: 1 });
    expect(reader.nextDataRun(PAGES)).toBeNull();
    reader.readPages(0, PAGES, Buffer.alloc(PAGES * PAGE_BYTES), 0);
    expect(allocatedPages()).toBe(4);
    writer.close();
    reader.close();
  });

  it("fails with the system's reason for a file that is missing, too short, or cut short later", () => {
    expect(failure(() => openRamReader({ ...block, path: "/dev/shm/godwit-no-such-file" }))).toMatchObject({
      _tag: "RamFileError",
      errno: "ENOENT",
      message: "open /dev/shm/godwit-no-such-file: ENOENT",
    });
    expect(failure(() => openRamWriter({ ...block, lengthBytes: 1024 * PAGE_BYTES }))).toMatchObject({
      errno: "EOVERFLOW",
    });
    const reader = openRamReader(block);
    truncateSync(block.path, FILE_OFFSET + PAGE_BYTES);
    expect(failure(() => reader.readPages(0, 2, Buffer.alloc(2 * PAGE_BYTES), 0))).toBeInstanceOf(RamFileError);
    reader.close();
  });
});

const mounts = process.getuid!() === 0;

const special = "a RAM file on a special file system";

/** Mounts a file system for the time of a test and runs it on a sparse file there. */
const onMounted = (type: string, options: string, test: (path: string) => void) => {
  const mountPoint = join(directory, "mounted");
  const path = join(mountPoint, "ram");
  mkdirSync(mountPoint);
  expect(spawnSync("mount", ["-t", type, "-o", options, "none", mountPoint]).status).toBe(0);
  try {
    writeFileSync(path, "");
    if (type !== "hugetlbfs") truncateSync(path, PAGES * PAGE_BYTES);
    test(path);
  } finally {
    spawnSync("umount", ["--lazy", mountPoint]);
  }
};

describe.skipIf(!mounts)(mounts ? special : `${special} (skipped: mounting one needs root)`, () => {
  it("zeroes by writing where no holes can be punched", () => {
    onMounted("ramfs", "mode=700", (path) => {
      const onRamfs = { ...block, path, fileOffset: 0 };
      const writer = openRamWriter(onRamfs);
      writer.writePages(0, PAGES, pagesOf(3, PAGES), 0);
      writer.zeroPages(1, PAGES - 2);
      writer.zeroPages(PAGES - 1, 1);
      const reader = openRamReader(onRamfs);
      const target = pagesOf(5, PAGES);
      reader.readPages(0, PAGES, target, 0);
      expect(target).toEqual(Buffer.concat([pagesOf(3, 1), pagesOf(0, PAGES - 1)]));
      writer.close();
      reader.close();
    });
  });

  it("fails with ENOSPC when it is full, and lets the process live", () => {
    onMounted("tmpfs", "size=128k", (small) => {
      // createRamFile would refuse; a sparse file shows what happens when room runs out later.
      const writer = openRamWriter({ ...block, path: small, fileOffset: 0 });
      const error = failure(() => writer.writePages(0, PAGES, pagesOf(1, PAGES), 0));
      expect(error).toMatchObject({ _tag: "RamFileError", operation: "write", errno: "ENOSPC", path: small });
      // Zeroing gives room back, and writing goes on.
      writer.zeroPages(0, PAGES);
      writer.writePages(0, 8, pagesOf(2, 8), 0);
      expect((statSync(small).blocks * 512) / PAGE_BYTES).toBe(8);
      writer.close();
    });
  });

  it("writes, zeroes and reads memory of huge pages, and fails with ENOMEM when there are not enough", () => {
    const HUGE_PAGE_BYTES = 2 ** 21;
    const setting = "/proc/sys/vm/nr_hugepages";
    const before = readFileSync(setting, "utf8");
    writeFileSync(setting, String(Number(before) + 2));
    try {
      onMounted("hugetlbfs", "pagesize=2M", (path) => {
        truncateSync(path, 2 * HUGE_PAGE_BYTES);
        const huge = {
          ...block,
          path,
          fileOffset: 0,
          lengthBytes: 2 * HUGE_PAGE_BYTES,
          hostPageBytes: HUGE_PAGE_BYTES,
        };
        const writer = openRamWriter(huge);
        writer.writePages(510, 4, pagesOf(7, 4), 0);
        writer.zeroPages(511, 2);
        const reader = openRamReader(huge);
        const target = pagesOf(5, 6);
        reader.readPages(509, 6, target, 0);
        expect(target).toEqual(
          Buffer.concat([pagesOf(0, 1), pagesOf(7, 1), pagesOf(0, 2), pagesOf(7, 1), pagesOf(0, 1)]),
        );
        writer.close();
        reader.close();
        const tooMany = 2 ** 20;
        truncateSync(path, tooMany * HUGE_PAGE_BYTES);
        const error = failure(() => openRamWriter({ ...huge, lengthBytes: tooMany * HUGE_PAGE_BYTES }));
        expect(error).toMatchObject({ operation: "mmap", errno: "ENOMEM" });
      });
    } finally {
      writeFileSync(setting, before);
    }
  });
});
