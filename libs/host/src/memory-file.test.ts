import { spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { nextData, nextHole, punchHole } from "./file-hole.ts";
import { tryLockFile } from "./file-lock.ts";
import { allocateFile } from "./file-space.ts";
import { HostError } from "./host-error.ts";
import { viewOf } from "./libc.ts";
import { mapFile } from "./mapping.ts";
import { PAGE_BYTES } from "./page.ts";
import { createRamFile, freeBytes } from "./ram-file.ts";

let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync("/dev/shm/godwit-host-");
  path = join(directory, "ram");
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const failure = (body: () => unknown): HostError => {
  try {
    body();
  } catch (error) {
    if (error instanceof HostError) return error;
    throw error;
  }
  throw new Error("it did not fail");
};

describe("a file that is allocated", () => {
  it("has its length, all its blocks, and zeros", () => {
    const fd = openSync(path, "wx+");
    allocateFile(fd, 3 * PAGE_BYTES + 1);
    const { size, blocks } = statSync(path);
    expect([size, blocks * 512]).toEqual([3 * PAGE_BYTES + 1, 4 * PAGE_BYTES]);
    closeSync(fd);
    expect(readFileSync(path).every((byte) => byte === 0)).toBe(true);
  });

  it("is refused with ENOSPC where it finds no room", () => {
    const fd = openSync(path, "wx+");
    expect(failure(() => allocateFile(fd, 2 ** 50, path))).toMatchObject({ errno: "ENOSPC", path });
    closeSync(fd);
  });
});

describe("a RAM file", () => {
  it("is created sparse, private and once", () => {
    closeSync(createRamFile(path, 2 ** 30));
    const { size, blocks, mode } = statSync(path);
    expect([size, blocks, mode & 0o777]).toEqual([2 ** 30, 0, 0o600]);
    expect(failure(() => createRamFile(path, 4096))).toMatchObject({ operation: "create", errno: "EEXIST", path });
  });

  it("is refused with ENOSPC, naming the file system and both numbers, when it could not be filled", () => {
    const error = failure(() => createRamFile(path, 2 ** 50));
    expect(error).toMatchObject({ operation: "create", errno: "ENOSPC", path });
    expect(error.message).toContain(`the file system of ${directory} has`);
    expect(error.message).toContain(String(2 ** 50));
    expect(freeBytes(directory)).toBeGreaterThan(0);
  });

  it("is refused in a directory that does not exist, leaving nothing", () => {
    expect(failure(() => createRamFile(join(directory, "none", "ram"), 4096))).toMatchObject({ errno: "ENOENT" });
  });
});

describe("a mapping", () => {
  it("is the file: both see each other's writes, from the offset asked for", () => {
    const fd = createRamFile(path, 4 * PAGE_BYTES);
    const mapping = mapFile(fd, { offsetBytes: PAGE_BYTES, lengthBytes: 2 * PAGE_BYTES }, "writable");
    writeSync(fd, Buffer.from("guest"), 0, 5, PAGE_BYTES + 10);
    expect(Buffer.from(mapping.bytes.subarray(10, 15)).toString()).toBe("guest");
    mapping.bytes[2 * PAGE_BYTES - 1] = 42;
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, 3 * PAGE_BYTES - 1);
    expect(byte[0]).toBe(42);
    expect(new Uint8Array(viewOf(mapping.address, 15))[10]).toBe("g".charCodeAt(0));
    mapping.unmap();
    closeSync(fd);
  });

  it("is refused where the file ends before it: touching it would be SIGBUS", () => {
    const fd = createRamFile(path, PAGE_BYTES);
    const error = failure(() => mapFile(fd, { offsetBytes: 0, lengthBytes: PAGE_BYTES + 1 }, "read-only"));
    expect(error).toMatchObject({ operation: "mmap", errno: "EOVERFLOW" });
    expect(error.message).toContain("the file has 4096 bytes, the range ends at 4097");
    closeSync(fd);
  });

  it("is refused with the kernel's reason at an offset within a page", () => {
    const fd = createRamFile(path, 2 * PAGE_BYTES);
    expect(failure(() => mapFile(fd, { offsetBytes: 1, lengthBytes: 10 }, "read-only"))).toMatchObject({
      errno: "EINVAL",
    });
    closeSync(fd);
  });

  it("is empty after unmap, so that a late access finds nothing", () => {
    const fd = createRamFile(path, PAGE_BYTES);
    const mapping = mapFile(fd, { offsetBytes: 0, lengthBytes: PAGE_BYTES }, "writable");
    const part = mapping.bytes.subarray(5);
    mapping.unmap();
    mapping.unmap();
    expect([mapping.bytes.length, part.length, part[0]]).toEqual([0, 0, undefined]);
    closeSync(fd);
  });
});

describe("holes of a file", () => {
  it("can be found, and made", () => {
    const fd = createRamFile(path, 64 * PAGE_BYTES);
    expect(nextData(fd, 0)).toBeNull();
    writeSync(fd, Buffer.alloc(4 * PAGE_BYTES, 1), 0, 4 * PAGE_BYTES, 8 * PAGE_BYTES);
    expect([nextData(fd, 0), nextHole(fd, 8 * PAGE_BYTES)]).toEqual([8 * PAGE_BYTES, 12 * PAGE_BYTES]);
    punchHole(fd, 9 * PAGE_BYTES, PAGE_BYTES);
    expect([nextHole(fd, 8 * PAGE_BYTES), nextData(fd, 9 * PAGE_BYTES)]).toEqual([9 * PAGE_BYTES, 10 * PAGE_BYTES]);
    expect(statSync(path).size).toBe(64 * PAGE_BYTES);
    closeSync(fd);
  });

  it("fail with the kernel's reason on a descriptor that is none", () => {
    expect(failure(() => punchHole(-1, 0, 1))).toMatchObject({ operation: "fallocate(PUNCH_HOLE)", errno: "EBADF" });
    expect(failure(() => nextData(-1, 0))).toMatchObject({ errno: "EBADF" });
    expect(failure(() => nextHole(-1, 0))).toMatchObject({ errno: "EBADF" });
  });
});

describe("a file's lock", () => {
  it("is held by one opening, until that is closed", () => {
    const fd = createRamFile(path, PAGE_BYTES);
    const other = openSync(path, "r");
    expect(tryLockFile(fd)).toBe(true);
    expect(tryLockFile(other)).toBe(false);
    closeSync(fd);
    expect(tryLockFile(other)).toBe(true);
    closeSync(other);
  });
});

describe("a file cut short under a mapping", () => {
  it("ends the process that touches it, which is why strangers' files are read instead", () => {
    const module = fileURLToPath(new URL("./index.ts", import.meta.url));
    const program = `
      const { mapFile } = await import(process.argv[1]);
      const { openSync, ftruncateSync } = await import("node:fs");
      const fd = openSync(process.argv[2], "r+");
      const { bytes } = mapFile(fd, { offsetBytes: 0, lengthBytes: 4096 }, "read-only");
      ftruncateSync(fd, 0);
      process.exit(bytes[0]);
    `;
    const fd = createRamFile(path, PAGE_BYTES);
    ftruncateSync(fd, PAGE_BYTES);
    closeSync(fd);
    const { signal } = spawnSync(process.execPath, ["--input-type=module", "-e", program, module, path]);
    expect(signal).toBe("SIGBUS");
    unlinkSync(path);
  });
});
