import { identifyFile } from "@godwit/host";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import * as Bitmap from "../bitmap.ts";
import type { DirtyTracker } from "../dirty-tracker.ts";
import type { TrackerError } from "../errors.ts";
import { pageCount, type RamBlock } from "../ram-block.ts";
import { openContentPool } from "./content-pool.ts";
import { attempt, trackerError } from "./failure.ts";
import { createShadowFile, sweepShadowFiles } from "./shadow-file.ts";
import { makeSync, type Scan } from "./sync.ts";

/**
 * Tracks any guest whose memory is a file, on any kernel, by comparing it with a shadow copy: at the cost of a second copy of
 * the memory that the guest uses, and of about 150 ms of processor time for each GiB in each sync.
 *
 * What is sent is the shadow (`readFrom`), never the guest's own memory. The destination then holds what the shadow held
 * when the page was reported last, so "equal to the shadow" means "right at the destination": a page that went from A to B and
 * back between two syncs cannot leave B there. For the same reason a torn read does no harm: what was read is stored and sent,
 * and differs from the guest at the next sync.
 *
 * The shadow lies in `shadowDirectory` (a tmpfs, best the one the guest's memory is on) and is removed when the scope ends.
 */
export const openContentTracker = (
  blocks: ReadonlyArray<RamBlock>,
  shadowDirectory: string,
): Effect.Effect<DirtyTracker, TrackerError, Scope.Scope> =>
  Effect.gen(function* () {
    yield* attempt("content", "open", () => {
      for (const block of blocks) identifyFile(block.path);
      sweepShadowFiles(shadowDirectory);
    });
    const shadowed = yield* Effect.forEach(blocks, (block) =>
      Effect.acquireRelease(
        attempt("content", "create the shadow", () => createShadowFile(shadowDirectory, block.lengthBytes)),
        (file) => Effect.sync(file.remove),
      ).pipe(Effect.map((file) => ({ block, shadowPath: file.path, present: Bitmap.makeShared(pageCount(block)) }))),
    );
    const pool = yield* Effect.acquireRelease(
      attempt("content", "start threads", () => openContentPool(shadowed)),
      (open) => Effect.promise(open.close),
    );
    const scan: Scan = (demand, found) =>
      Effect.callback<void, TrackerError>((resume) => {
        const scanned = pool.scan(demand, found).then(
          () => resume(Effect.void),
          (cause) => resume(Effect.fail(trackerError("content", "compare", cause))),
        );
        // The next sync must find the threads at rest, so an interruption waits for the chunks at hand.
        return Effect.promise(() => {
          pool.stop();
          return scanned;
        });
      });
    const readFrom = shadowed.map(({ block, shadowPath }) => ({ ...block, path: shadowPath, fileOffset: 0 }));
    return { kind: "content", readFrom, sync: makeSync(scan) };
  });
