/** A restore whose guest runs before its memory is there: how it begins, and how a restarted loader goes on with it. */
import { closeSync, constants, openSync } from "node:fs";
import type { Settings } from "@godwit/actor";
import { type Checkpoint, checksumsOf, type FilePlace, fingerprintOf, readCheckpoint } from "@godwit/checkpoint";
import type { GuestSpec, Registry } from "@godwit/guest";
import { GodwitError, type Parameters, type RestoreRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { isOfProcess } from "./guest-memory.ts";
import { bringPages, expectPages, type OpenCheckpoint, type Paging } from "./paging.ts";
import { differenceOf, forgetPaging, identityOf, type PagingFacts } from "./paging-file.ts";
import { openPagingThread, type PagingThread } from "./paging-thread.ts";
import type { Progress } from "./restoring.ts";

/** Answers faults from now on, and brings the rest; returns once all is there. */
export type BringPages = Effect.Effect<void, GodwitError>;

const fail = (code: GodwitError["code"], step: string, reason: string): GodwitError =>
  new GodwitError({ code, actor: "loader", side: "destination", step, reason });

/** Lets the guest wait for its pages; it may run as soon as the result goes. */
export const lazyRestore = (begun: {
  readonly asked: RestoreRequest;
  readonly place: FilePlace;
  readonly parameters: Parameters;
  readonly settings: Settings;
  readonly spec: GuestSpec;
  readonly thread: PagingThread;
  readonly progress: Progress;
  /** The checkpoint that was read. */
  readonly fd: number;
  readonly checkpoint: Checkpoint;
}): Effect.Effect<BringPages, GodwitError> =>
  Effect.gen(function* () {
    const { asked, place, parameters, settings, spec, thread, progress, fd, checkpoint } = begun;
    if (spec.driver !== "builtin")
      return yield* fail(
        "incompatible",
        "load the checkpoint",
        "the checkpoint is of a builtin guest, and a QEMU waits here",
      );
    const facts = yield* expectPages(
      spec,
      {
        asked,
        startedAt: progress.startedAt,
        place: { path: place.path, start: place.start },
        checkpoint: identityOf(fd, fingerprintOf(checkpoint)),
        restBytesPerSecond: parameters["max-postcopy-bandwidth"],
      },
      settings,
    );
    return bringPages(pagingOf({ facts, spec, settings, thread, progress }));
  });

const pagingOf = (
  parts: Pick<Paging, "facts" | "spec" | "settings" | "thread"> & { readonly progress: Progress },
): Paging => {
  const { progress, ...rest } = parts;
  return {
    ...rest,
    open: Effect.tap(openNoted(parts.facts), ({ checkpoint, sums }) =>
      Effect.sync(() => {
        progress.total = checkpoint.blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
        progress.checksums = sums === null ? "none" : "verified";
      }),
    ),
    seen: ({ readBytes, leftBytes, requests, latency }) => {
      progress.transferred = readBytes;
      progress.remaining = leftBytes;
      progress.details = { ...progress.details, "postcopy-requests": requests, "postcopy-latency": latency };
    },
    held: (obstacle) => {
      const { error: _error, ...others } = progress.details;
      progress.details = obstacle === null ? others : { ...others, error: obstacle };
    },
  };
};

/** The checkpoint that was noted, and no other one. */
const openNoted = ({
  place,
  checkpoint: noted,
}: PagingFacts): Effect.Effect<OpenCheckpoint, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    const fd = yield* Effect.acquireRelease(
      reading(() => openSync(place.path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW)),
      (open) => Effect.sync(() => closeSync(open)),
    );
    const checkpoint = yield* reading(() => readCheckpoint(fd, place.start));
    const identity = identityOf(fd, fingerprintOf(checkpoint));
    const difference = differenceOf(noted, identity);
    if (difference !== null)
      return yield* fail("checkpoint-failed", "open the checkpoint", `${place.path}: ${difference}`);
    const sums = yield* reading(() => checksumsOf(place.path, identity.fingerprint));
    return { fd, checkpoint, identity, sums: sums.blocks };
  });

const reading = <A>(read: () => A): Effect.Effect<A, GodwitError> =>
  Effect.try({
    try: read,
    catch: (cause) =>
      fail("checkpoint-failed", "open the checkpoint", cause instanceof Error ? cause.message : String(cause)),
  });

/** Goes on with what a former life of this loader has begun. Returns once all pages are there, or there is nothing to bring any more. */
export const goOnRestoring = Effect.fnUntraced(function* (
  facts: PagingFacts,
  tools: { readonly settings: Settings; readonly registry: Registry },
  progress: Progress,
): Effect.fn.Return<void, GodwitError, Scope.Scope> {
  const { settings, registry } = tools;
  const spec = registry.find(facts.asked.guest);
  if (spec?.driver !== "builtin" || !isOfProcess(facts.memory, spec.pid)) {
    forgetPaging(settings.runtimeDirectory, facts.asked);
    return yield* fail("guest-failed", "go on with a restore", `guest ${facts.asked.guest} is gone, or is another one`);
  }
  yield* Effect.logInfo(`going on where a former loader stopped: guest ${spec.name} runs, and waits for its pages`);
  const thread = yield* openPagingThread;
  yield* bringPages(pagingOf({ facts, spec, settings, thread, progress }));
});
