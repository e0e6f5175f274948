import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, readSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { probeHost, probeSoftDirty, probeUserfaultfd } from "./abilities.ts";
import { mapFile } from "./mapping.ts";
import { PAGE_BYTES } from "./page.ts";
import { makeWrittenPageScanner, openPagemap, PAGEMAP_HIGH, readPagemap, SCAN_RUNS_MAX } from "./pagemap.ts";
import { createRamFile } from "./ram-file.ts";
import { armOwnMemory, openUserfaultfd } from "./userfaultfd.ts";

const userfaultfd = probeUserfaultfd();
const skipped = userfaultfd._tag === "Missing";
const title = skipped ? `written pages (skipped: ${userfaultfd.reason})` : "written pages";

/** Memory of this process, armed, for the time of a test. */
const withArmed = (
  pages: number,
  body: (armed: { bytes: Uint8Array; fd: number; scan: (pages: number) => Scanned; address: bigint }) => void,
) => {
  const directory = mkdtempSync("/dev/shm/godwit-tracking-");
  const fd = createRamFile(join(directory, "ram"), pages * PAGE_BYTES);
  const mapping = mapFile(fd, { offsetBytes: 0, lengthBytes: pages * PAGE_BYTES }, "writable");
  const uffd = armOwnMemory([mapping]);
  const pagemap = openPagemap(process.pid);
  const scanner = makeWrittenPageScanner(pagemap);
  const scan = (count: number): Scanned => {
    const { runs, runCount, scannedPages } = scanner.scan(mapping.address, count);
    return { runs: [...runs.subarray(0, runCount * 2)], scannedPages };
  };
  try {
    body({ bytes: mapping.bytes, fd, scan, address: mapping.address });
  } finally {
    pagemap.close();
    uffd.close();
    mapping.unmap();
    closeSync(fd);
    rmSync(directory, { recursive: true });
  }
};
interface Scanned {
  readonly runs: number[];
  readonly scannedPages: number;
}

describe.skipIf(skipped)(title, () => {
  it("are found once, as runs", () => {
    withArmed(100, ({ bytes, scan }) => {
      scan(100);
      bytes[3 * PAGE_BYTES] = 1;
      bytes[4 * PAGE_BYTES + 17] = 1;
      bytes[99 * PAGE_BYTES] = 1;
      expect(scan(100)).toEqual({ runs: [3, 2, 99, 1], scannedPages: 100 });
      expect(scan(100)).toEqual({ runs: [], scannedPages: 100 });
    });
  });

  it("are found when the kernel writes them on behalf of the process", () => {
    withArmed(10, ({ bytes, scan }) => {
      const directory = mkdtempSync("/dev/shm/godwit-source-");
      const source = createRamFile(join(directory, "source"), PAGE_BYTES);
      scan(10);
      readSync(source, bytes, 6 * PAGE_BYTES, PAGE_BYTES, 0);
      expect(scan(10).runs).toEqual([6, 1]);
      closeSync(source);
      rmSync(directory, { recursive: true });
    });
  });

  it("beyond the room for runs are left for the next scan, at the place where the last one stopped", () => {
    const pages = SCAN_RUNS_MAX * 4;
    withArmed(pages, ({ bytes, scan }) => {
      while (scan(pages).scannedPages < pages);
      for (let page = 0; page < pages; page += 2) bytes[page * PAGE_BYTES] = 1;
      const first = scan(pages);
      expect(first.runs).toHaveLength(SCAN_RUNS_MAX * 2);
      expect(first.scannedPages).toBeLessThan(pages);
      const rest = scan(pages);
      expect(rest.runs[0]).toBeGreaterThanOrEqual(first.scannedPages);
      expect(first.runs.length + rest.runs.length).toBe(pages);
      expect(scan(pages).runs).toEqual([]);
    });
  });

  it("of memory that is not armed are refused, not called clean", () => {
    const pagemap = openPagemap(process.pid);
    const directory = mkdtempSync("/dev/shm/godwit-unarmed-");
    const fd = createRamFile(join(directory, "ram"), 4 * PAGE_BYTES);
    const mapping = mapFile(fd, { offsetBytes: 0, lengthBytes: 4 * PAGE_BYTES }, "writable");
    expect(() => makeWrittenPageScanner(pagemap).scan(mapping.address, 4)).toThrow(/PAGEMAP_SCAN.*EPERM/);
    mapping.unmap();
    closeSync(fd);
    pagemap.close();
    rmSync(directory, { recursive: true });
  });
});

describe("a userfaultfd", () => {
  it.skipIf(skipped)("is refused with EINVAL for a feature that no kernel has", () => {
    expect(() => openUserfaultfd({ features: 1n << 62n })).toThrow(/UFFDIO_API.*EINVAL/);
  });
});

describe("a pagemap", () => {
  it("says of each page whether it has memory", () => {
    const directory = mkdtempSync("/dev/shm/godwit-pagemap-");
    const fd = createRamFile(join(directory, "ram"), 4 * PAGE_BYTES);
    const mapping = mapFile(fd, { offsetBytes: 0, lengthBytes: 4 * PAGE_BYTES }, "writable");
    mapping.bytes[2 * PAGE_BYTES] = 1;
    const pagemap = openPagemap(process.pid);
    const entries = new Uint32Array(8);
    readPagemap(pagemap, mapping.address, 4, entries);
    const present = [1, 3, 5, 7].map((word) => (entries[word]! & PAGEMAP_HIGH.PRESENT) !== 0);
    expect(present).toEqual([false, false, true, false]);
    pagemap.close();
    mapping.unmap();
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  it("of a process that is not there fails with ENOENT", () => {
    expect(() => openPagemap(2 ** 22 + 1)).toThrow(/ENOENT/);
  });
});

describe("the probe of this host", () => {
  it("tells what works, and why the rest does not", () => {
    const host = probeHost();
    expect(host.kernelPageBytes).toBe(PAGE_BYTES);
    expect(host.sharedMemoryFreeBytes).toBeGreaterThan(0);
    for (const ability of [host.userfaultfd, host.softDirty, probeSoftDirty()]) {
      if (ability._tag === "Missing") expect(ability.reason).not.toBe("");
    }
    expect(host.rootWouldAdd.length > 0).toBe(host.uid !== 0);
  });

  const root = process.getuid!() === 0;
  it.skipIf(!root)(
    root
      ? "finds the same for a plain user, save what root adds"
      : "for a plain user is what the test above is (not root here)",
    () => {
      const module = fileURLToPath(new URL("./index.ts", import.meta.url));
      const program = "const { probeHost } = await import(process.argv[1]); console.log(JSON.stringify(probeHost()));";
      const NOBODY = 65_534;
      const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", program, module], {
        uid: NOBODY,
        gid: NOBODY,
        encoding: "utf8",
      });
      const host = JSON.parse(stdout);
      expect(host.uid).toBe(NOBODY);
      expect(host.userfaultfd._tag).toBe(userfaultfd._tag);
      expect(host.rootWouldAdd).toContain("tracking and reading guests that run as another user");
    },
  );
});
