/** Pages that a checkpoint does not hold are zeros, whatever a guest's memory held while the guest waited. */
import { openRamReader, openRamWriter, type RamBlock } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";

/** Pages that are looked at in one go, before the loader's other guests have their turn: 64 MiB. */
const TURN_PAGES = 16_384;

/**
 * Makes the pages of a block zeros that are not in `present`. Holes of its file are zeros already, and a guest that waits has hardly
 * anything else, unless its memory is preallocated: then only what is to be cleared is given back.
 */
export const clearAbsent = (block: RamBlock, present: Bitmap.Bitmap): Effect.Effect<void, GodwitError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const close = (opened: { readonly close: () => void }) => Effect.sync(opened.close);
      const reader = yield* Effect.acquireRelease(
        attempt(() => openRamReader(block)),
        close,
      );
      const writer = yield* Effect.acquireRelease(
        attempt(() => openRamWriter(block)),
        close,
      );
      for (let page = 0; ; ) {
        const run = yield* attempt(() => reader.nextDataRun(page));
        if (run === null) return;
        const end = run.first + Math.min(run.count, TURN_PAGES);
        yield* attempt(() => gaps(present, run.first, end, writer.dropPages));
        page = end;
        yield* Effect.yieldNow;
      }
    }),
  );

const gaps = (
  present: Bitmap.Bitmap,
  first: number,
  end: number,
  found: (first: number, pages: number) => void,
): void => {
  for (let page = first; page < end; ) {
    const next = Bitmap.nextRun(present, page, end - page);
    const gapEnd = Math.min(end, next?.first ?? end);
    if (gapEnd > page) found(page, gapEnd - page);
    page = next === null ? end : next.first + next.count;
  }
};

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
