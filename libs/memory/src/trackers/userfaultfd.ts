import { makeWrittenPageScanner, openPagemap } from "@godwit/host";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { DirtyTracker, TrackedProcess } from "../dirty-tracker.ts";
import { TrackerError } from "../errors.ts";
import { PAGE_BYTES, pageCount } from "../ram-block.ts";
import { attempt } from "./failure.ts";
import { openMappedProcess } from "./mapped-process.ts";
import { makeSync, type Scan } from "./sync.ts";

/** Pages that one system call walks: 256 MiB, for 2 ms at most if all of them are dirty, so that timers and messages get their turn. */
const SCAN_PAGES = 65_536;

/**
 * Tracks a guest whose process has registered its RAM with userfaultfd itself (`armOwnMemory` of @godwit/host), from any other
 * process of the same user: PAGEMAP_SCAN on its /proc/PID/pagemap finds the written pages and protects them again in one atomic
 * step for each page. Nothing of the guest's descriptors is needed, so no right to attach to it either.
 *
 * Costs the guest one short fault for the first write to a page after each sync. Sees what the guest's process and the
 * kernel write through that mapping, KVM included, and not what another process or a device writes to the same file.
 */
export const openUserfaultfdTracker = (
  process: TrackedProcess,
): Effect.Effect<DirtyTracker, TrackerError, Scope.Scope> =>
  Effect.gen(function* () {
    if (!process.userfaultfd) {
      const reason = "the guest's process has not registered its memory with userfaultfd";
      return yield* new TrackerError({ kind: "userfaultfd", operation: "open", reason });
    }
    const mapped = yield* attempt("userfaultfd", "open", () => openMappedProcess(process));
    const pagemap = yield* Effect.acquireRelease(
      attempt("userfaultfd", "open", () => openPagemap(process.pid)),
      (open) => Effect.sync(open.close),
    );
    const scanner = makeWrittenPageScanner(pagemap);
    // A trial on one page of each block shows at once whether they are registered. Protecting early does no harm: the first
    // sync reports everything.
    for (const block of process.blocks) yield* attempt("userfaultfd", "open", () => scanner.scan(block.address, 1));

    const scan: Scan = Effect.fnUntraced(function* (demand, found) {
      for (const [index, block] of process.blocks.entries()) {
        const pages = pageCount(block);
        for (let page = 0; page < pages; ) {
          const address = block.address + BigInt(page) * BigInt(PAGE_BYTES);
          const part = yield* attempt("userfaultfd", "scan", () =>
            scanner.scan(address, Math.min(SCAN_PAGES, pages - page)),
          );
          if (part.scannedPages === 0) {
            const reason = `the kernel's scan stands still at page ${page} of block ${block.name}`;
            return yield* new TrackerError({ kind: "userfaultfd", operation: "scan", reason });
          }
          if (demand === "everything") found(index, page, part.scannedPages);
          else {
            for (let run = 0; run < part.runCount; run++) {
              found(index, page + part.runs[run * 2]!, part.runs[run * 2 + 1]!);
            }
          }
          page += part.scannedPages;
          yield* Effect.yieldNow;
        }
      }
      yield* attempt("userfaultfd", "scan", mapped.check);
    });
    return { kind: "userfaultfd", readFrom: process.blocks, sync: makeSync(scan) };
  });
