import { closeSync, unlinkSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { punchHole } from "./file-hole.ts";
import { errnoOf, HostError } from "./host-error.ts";
import { type Mapping, mapFile } from "./mapping.ts";
import { copyPages, registerMissing, zeroPages } from "./missing-faults.ts";
import { kernelPageBytes, PAGE_BYTES } from "./page.ts";
import { makeWrittenPageScanner, openPagemap, PAGEMAP_HIGH, readPagemap } from "./pagemap.ts";
import { createRamFile, freeBytes } from "./ram-file.ts";
import { clearSoftDirty } from "./soft-dirty.ts";
import { armOwnMemory, openUserfaultfd, type UserfaultfdMode } from "./userfaultfd.ts";

/** Whether something works here, found out by doing it; `reason` says what stood in the way. */
export type Ability = { readonly _tag: "Works" } | { readonly _tag: "Missing"; readonly reason: string };

/** Where guest memory lies by default. */
export const SHARED_MEMORY_DIRECTORY = "/dev/shm";

/** What this kernel and this user offer. */
export interface HostAbilities {
  readonly uid: number;
  readonly architecture: string;
  readonly kernelRelease: string;
  readonly kernelPageBytes: number;
  /** Bytes free in /dev/shm. */
  readonly sharedMemoryFreeBytes: number;
  /** userfaultfd with asynchronous write protection of shared memory, and a scan that sees a write and no other. */
  readonly userfaultfd: Ability & { readonly mode: UserfaultfdMode | null };
  /** userfaultfd of missing pages of shared memory: a guest that runs before its memory is there. */
  readonly missingFaults: Ability;
  /** Reading soft-dirty bits of shared memory after clearing them. */
  readonly softDirty: Ability;
  /** What the same host would offer to root on top; empty for root. */
  readonly rootWouldAdd: ReadonlyArray<string>;
}

/** Tries everything out on two pages of its own in /dev/shm. Fails only when no memory file can be made there at all. */
export const probeHost = (): HostAbilities => {
  const uid = process.getuid!();
  const userfaultfd = probeUserfaultfd();
  return {
    uid,
    architecture: process.arch,
    kernelRelease: release(),
    kernelPageBytes: kernelPageBytes(),
    sharedMemoryFreeBytes: freeBytes(SHARED_MEMORY_DIRECTORY),
    userfaultfd,
    missingFaults: probeMissingFaults(),
    softDirty: probeSoftDirty(),
    rootWouldAdd: uid === 0 ? [] : whatRootAdds(userfaultfd.mode),
  };
};

const WORKS: Ability = { _tag: "Works" };
const missing = (reason: string): Ability => ({ _tag: "Missing", reason });

/** Arms two pages, protects them with a first scan, writes one of them, and looks what a second scan finds. */
export const probeUserfaultfd = (): HostAbilities["userfaultfd"] =>
  withTrialPages((pages) => {
    let mode: UserfaultfdMode | null = null;
    try {
      const userfaultfd = armOwnMemory([pages]);
      mode = userfaultfd.mode;
      const pagemap = openPagemap(process.pid);
      try {
        const scanner = makeWrittenPageScanner(pagemap);
        scanner.scan(pages.address, TRIAL_PAGES);
        pages.bytes[PAGE_BYTES] = 2;
        const { runs, runCount } = scanner.scan(pages.address, TRIAL_PAGES);
        const exact = runCount === 1 && runs[0] === 1 && runs[1] === 1;
        return { ...(exact ? WORKS : missing("a scan did not find exactly the page that was written")), mode };
      } finally {
        pagemap.close();
        userfaultfd.close();
      }
    } catch (error) {
      return { ...missing(explain(error)), mode };
    }
  });

/** Empties two pages, places one by a copy and one as zeros, and looks at both. Nothing is touched before it is placed: this thread would wait for itself. */
export const probeMissingFaults = (): Ability =>
  withTrialPages((pages, fd) => {
    try {
      const userfaultfd = openUserfaultfd({ features: 0n });
      try {
        punchHole(fd, 0, pages.lengthBytes);
        registerMissing(userfaultfd.fd, pages, "missing");
        const copied = copyPages(userfaultfd.fd, pages.address, new Uint8Array(PAGE_BYTES).fill(3));
        const zeroed = zeroPages(userfaultfd.fd, pages.address + BigInt(PAGE_BYTES), 1);
        const exact = copied === 1 && zeroed === 1 && pages.bytes[0] === 3 && pages.bytes[PAGE_BYTES] === 0;
        return exact ? WORKS : missing("pages that were placed are not what was placed");
      } finally {
        userfaultfd.close();
      }
    } catch (error) {
      return missing(explain(error));
    }
  });

/** Clears the bits, writes one of two pages, and looks whether exactly that one carries the bit: a kernel without the feature takes the order and ignores it. */
export const probeSoftDirty = (): Ability =>
  withTrialPages((pages) => {
    try {
      const pagemap = openPagemap(process.pid);
      try {
        clearSoftDirty(process.pid);
        pages.bytes[PAGE_BYTES] = 2;
        const entries = new Uint32Array(TRIAL_PAGES * 2);
        readPagemap(pagemap, pages.address, TRIAL_PAGES, entries);
        const dirty = (page: number) => (entries[page * 2 + 1]! & PAGEMAP_HIGH.SOFT_DIRTY) !== 0;
        if (dirty(1) && !dirty(0)) return WORKS;
        return missing("the kernel was built without CONFIG_MEM_SOFT_DIRTY, or this processor is not served");
      } finally {
        pagemap.close();
      }
    } catch (error) {
      return missing(explain(error));
    }
  });

const TRIAL_PAGES = 2;

/** Two pages of shared memory that hold something, since an untouched page is a case of its own. */
const withTrialPages = <A>(trial: (pages: Mapping, fd: number) => A): A => {
  const path = join(SHARED_MEMORY_DIRECTORY, `godwit-trial-${process.pid}-${Math.random().toString(36).slice(2)}`);
  const lengthBytes = TRIAL_PAGES * PAGE_BYTES;
  const fd = createRamFile(path, lengthBytes);
  unlinkSync(path);
  try {
    const pages = mapFile(fd, { offsetBytes: 0, lengthBytes }, "writable");
    try {
      pages.bytes.fill(1);
      return trial(pages, fd);
    } finally {
      pages.unmap();
    }
  } finally {
    closeSync(fd);
  }
};

const WHY: Readonly<Record<string, string>> = {
  EPERM: "this user may not (vm.unprivileged_userfaultfd is 0, or a security policy forbids it)",
  ENOSYS: "the kernel was built without it",
  EINVAL: "the kernel is older than 6.7, or lacks userfaultfd write protection for this kind of memory",
  ENOTTY: "the kernel is older than 6.7",
};

const explain = (error: unknown): string => {
  const errno = errnoOf(error);
  const operation = error instanceof HostError ? error.operation : "trial";
  return `${operation}: ${errno}, ${WHY[errno] ?? String(error)}`;
};

const whatRootAdds = (mode: UserfaultfdMode | null): ReadonlyArray<string> => [
  ...(mode === "full" ? [] : ["userfaultfd that also stops at faults of the kernel, which postcopy needs"]),
  "tracking and reading guests that run as another user",
  "VFIO devices that this user has no access to",
];
