import { readFileSync, statfsSync } from "node:fs";
import {
  clearSoftDirty,
  openFreezer,
  openPagemap,
  PAGEMAP_ENTRY_BYTES,
  type Pagemap,
  probeSoftDirty,
  readPagemap,
} from "@godwit/host";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import * as Bitmap from "../bitmap.ts";
import type { DirtyTracker, TrackedProcess } from "../dirty-tracker.ts";
import { TrackerError } from "../errors.ts";
import { takeEntries } from "../kernel/soft-dirty-entries.ts";
import { PAGE_BYTES, pageCount, type RamBlock } from "../ram-block.ts";
import { attempt } from "./failure.ts";
import { openMappedProcess } from "./mapped-process.ts";
import { makeSync, type Scan } from "./sync.ts";

/** Pages of one read of the pagemap: 512 KiB of entries. */
const READ_PAGES = 65_536;
/** Longest run that is reported at once, pages: 8 MiB. */
const RUN_PAGES = 2048;
/** f_type of tmpfs, which memfd files have, too (include/uapi/linux/magic.h). */
const TMPFS_MAGIC = 0x01021994;

/**
 * Tracks any process of the same user through the kernel's soft-dirty bits, without its help.
 *
 * Reading the bits and clearing them are two steps, and a write in between would be lost. So the whole process is stopped
 * around the pair: for the reading of 8 bytes for each page (about 25 ms for each GiB of guest) and for the clearing, which
 * write-protects all of its memory. The guest stands still for that long in every round, which is why this is the second choice.
 * Costs the guest one fault for the first write to a page after each sync.
 *
 * Trap: the kernel forgets the bit of a page of a file when it takes the page away, to swap or to disk. A host with swap, or
 * memory in a file on a disk, is therefore refused.
 */
export const openSoftDirtyTracker = (process: TrackedProcess): Effect.Effect<DirtyTracker, TrackerError, Scope.Scope> =>
  Effect.gen(function* () {
    const obstacle = yield* attempt("soft-dirty", "open", () => findObstacle(process.blocks));
    if (obstacle !== null) return yield* new TrackerError({ kind: "soft-dirty", operation: "open", reason: obstacle });
    const mapped = yield* attempt("soft-dirty", "open", () => openMappedProcess(process));
    const pagemap = yield* Effect.acquireRelease(
      attempt("soft-dirty", "open", () => openPagemap(process.pid)),
      (open) => Effect.sync(open.close),
    );
    const freezer = yield* Effect.acquireRelease(
      attempt("soft-dirty", "open", () => openFreezer(process.pid)),
      (open) => Effect.sync(open.close),
    );
    const state = process.blocks.map((block) => ({
      block,
      dirty: Bitmap.make(pageCount(block)),
      mapped: Bitmap.make(pageCount(block)),
    }));
    const entries = new Uint32Array((READ_PAGES * PAGEMAP_ENTRY_BYTES) / Uint32Array.BYTES_PER_ELEMENT);

    const readThenClear = () => {
      for (const { block, dirty, mapped } of state) {
        Bitmap.clearAll(dirty);
        readBlock(pagemap, block, entries, dirty, mapped);
      }
      clearSoftDirty(process.pid);
    };
    const scan: Scan = Effect.fnUntraced(function* (demand, found) {
      yield* attempt("soft-dirty", "scan", () => freezer.whileFrozen(readThenClear));
      yield* attempt("soft-dirty", "scan", mapped.check);
      for (const [index, { dirty }] of state.entries()) {
        if (demand === "everything") Bitmap.setAll(dirty);
        for (let from = 0; ; ) {
          const run = Bitmap.nextRun(dirty, from, RUN_PAGES);
          if (run === null) break;
          found(index, run.first, run.count);
          from = run.first + run.count;
        }
        yield* Effect.yieldNow;
      }
    });
    return { kind: "soft-dirty", readFrom: process.blocks, sync: makeSync(scan) };
  });

const readBlock = (
  pagemap: Pagemap,
  block: RamBlock & { readonly address: bigint },
  entries: Uint32Array,
  dirty: Bitmap.Bitmap,
  mapped: Bitmap.Bitmap,
): void => {
  const total = pageCount(block);
  for (let page = 0; page < total; page += READ_PAGES) {
    const pages = Math.min(READ_PAGES, total - page);
    readPagemap(pagemap, block.address + BigInt(page) * BigInt(PAGE_BYTES), pages, entries);
    takeEntries(entries, page, pages, dirty, mapped);
  }
};

/** Why soft-dirty bits cannot be trusted for these blocks on this host, or null. */
const findObstacle = (blocks: ReadonlyArray<RamBlock>): string | null => {
  const ability = probeSoftDirty();
  if (ability._tag === "Missing") return ability.reason;
  // The first line is the heading.
  const swaps = readFileSync("/proc/swaps", "utf8").trim().split("\n").slice(1);
  if (swaps.length > 0) return `this host swaps (${swaps[0]!.split(/\s/)[0]}), and a page loses its bit on the way`;
  const elsewhere = blocks.find((block) => statfsSync(block.path).type !== TMPFS_MAGIC);
  if (elsewhere !== undefined) return `block ${elsewhere.name} lies in ${elsewhere.path}, which is not on tmpfs`;
  return null;
};
