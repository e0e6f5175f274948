/** Pages that a checkpoint does not hold are zeros, whatever a guest's memory held while the guest waited. */
import { closeSync, openSync } from "node:fs";
import { nextData } from "@godwit/host";
import { openRamWriter, PAGE_BYTES, type RamBlock } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";

/** What is done in one go, before the loader's other guests have their turn: pages that are given back (64 MiB), */
const TURN_PAGES = 16_384;
/** and gaps that are looked at. */
const TURN_GAPS = 1024;

/**
 * Makes the pages of a block zeros that are not in `present`. Holes of its file are zeros already, and a guest that waits has hardly
 * anything else, unless its memory is preallocated: then only what is to be cleared is given back. Asks where data begins and never where
 * it ends, which costs the more the more data there is.
 */
export const clearAbsent = (block: RamBlock, present: Bitmap.Bitmap): Effect.Effect<void, GodwitError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const fd = yield* Effect.acquireRelease(
        attempt(() => openSync(block.path, "r")),
        (open) => Effect.sync(() => closeSync(open)),
      );
      const writer = yield* Effect.acquireRelease(
        attempt(() => openRamWriter(block)),
        (open) => Effect.sync(open.close),
      );
      let gaps = 0;
      for (let page = 0; page < present.pageCount; ) {
        if (++gaps % TURN_GAPS === 0) yield* Effect.yieldNow;
        const stored = Bitmap.nextRun(present, page, present.pageCount);
        const gapEnd = stored?.first ?? present.pageCount;
        if (gapEnd > page) {
          const data = yield* attempt(() => nextData(fd, block.fileOffset + page * PAGE_BYTES));
          if (data === null) return;
          const dataPage = Math.floor((data - block.fileOffset) / PAGE_BYTES);
          if (dataPage >= gapEnd) {
            page = dataPage;
            continue;
          }
          for (let at = Math.max(page, dataPage); at < gapEnd; at += TURN_PAGES) {
            yield* attempt(() => writer.dropPages(at, Math.min(TURN_PAGES, gapEnd - at)));
            yield* Effect.yieldNow;
          }
        }
        page = stored === null ? present.pageCount : stored.first + stored.count;
      }
    }),
  );

const attempt = <A>(work: () => A): Effect.Effect<A, GodwitError> =>
  Effect.try({
    try: work,
    catch: (cause) =>
      new GodwitError({
        code: "memory-unreadable",
        actor: "loader",
        side: "destination",
        step: "clear the memory",
        reason: cause instanceof Error ? cause.message : String(cause),
      }),
  });
