/** A restore whose guest runs before its memory is there: how it begins, and how a restarted loader goes on with it. */
import { closeSync, constants, openSync } from "node:fs";
import type { Settings } from "@godwit/actor";
import { type Checkpoint, checksumsOf, type FilePlace, fingerprintOf, readCheckpoint } from "@godwit/checkpoint";
import { type Guest, type GuestDescription, type GuestSpec, lookAt, openGuest } from "@godwit/guest";
import { punchHole } from "@godwit/host";
import { PAGE_BYTES, type RamBlock } from "@godwit/memory";
import { GodwitError, type Parameters, type RestoreRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { isSameMemory, memoryOf } from "./guest-memory.ts";
import { bringPages, type OpenCheckpoint, type Paging } from "./paging.ts";
import { differenceOf, forgetPaging, identityOf, notePaging, type PagingFacts } from "./paging-file.ts";
import { discardArrived } from "./recovery-run.ts";
import { isOurs } from "./restore-record.ts";
import type { Progress } from "./restoring.ts";
import type { HostTools } from "./session.ts";

/** A guest that does not say how it stands is asked again, ms: it may be held up by a page that nobody brings yet. */
const ASK_AGAIN_MS = 1000;

/** Answers faults from now on, and brings the rest; returns once all is there. */
export type BringPages = Effect.Effect<void, GodwitError>;

const fail = (code: GodwitError["code"], step: string, reason: string): GodwitError =>
  new GodwitError({ code, actor: "loader", side: "destination", step, reason });

const BEGIN = "begin a lazy restore";

/**
 * Lets the guest, which waits, wait for its pages as well, and notes for a restarted loader where they come from. Its device state may be
 * loaded once the result works.
 */
export const lazyRestore = (begun: {
  readonly asked: RestoreRequest;
  readonly place: FilePlace;
  readonly parameters: Parameters;
  readonly settings: Settings;
  readonly spec: GuestSpec;
  readonly guest: Guest;
  /** The guest's own. */
  readonly blocks: ReadonlyArray<RamBlock>;
  readonly progress: Progress;
  /** The checkpoint that was read. */
  readonly fd: number;
  readonly checkpoint: Checkpoint;
}): Effect.Effect<BringPages, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    const { asked, place, parameters, settings, spec, guest, blocks, progress, fd, checkpoint } = begun;
    const huge = blocks.find(({ hostPageBytes }) => hostPageBytes !== PAGE_BYTES);
    if (huge !== undefined) {
      const what = `RAMBlock ${huge.name} has pages of ${huge.hostPageBytes} bytes, of which its file does not tell which are missing`;
      return yield* fail("not-supported", BEGIN, `${what}: restore without --lazy`);
    }
    const { pid } = yield* guest.describe;
    const facts: PagingFacts = {
      asked,
      startedAt: progress.startedAt,
      memory: memoryOf({ pid, blocks }),
      place: { path: place.path, start: place.start },
      checkpoint: identityOf(fd, fingerprintOf(checkpoint)),
      restBytesPerSecond: parameters["max-postcopy-bandwidth"],
    };
    // First of all: a QEMU that was prepared is of no use to another restore, and whoever comes next must know of it.
    yield* Effect.try({
      try: () => notePaging(settings.runtimeDirectory, facts),
      catch: (cause) => fail("checkpoint-failed", BEGIN, cause instanceof Error ? cause.message : String(cause)),
    });
    const memory = yield* Effect.gen(function* () {
      yield* guest.prepareForPostcopy.pipe(
        Effect.mapError((error) =>
          error.code === "not-supported" ? fail(error.code, BEGIN, `${error.reason}: restore without --lazy`) : error,
        ),
      );
      yield* emptyMemory(blocks);
      return yield* guest.expectPages(blocks);
    }).pipe(Effect.onError(() => Effect.sync(() => forgetPaging(settings.runtimeDirectory, asked))));
    return bringPages(pagingOf({ facts, spec, settings, memory, blocks, progress }));
  });

/** A guest that had waited for something else may have pages of that, and what is there is never overwritten. */
const emptyMemory = (blocks: ReadonlyArray<RamBlock>): Effect.Effect<void, GodwitError> =>
  Effect.try({
    try: () => {
      for (const { path, fileOffset, lengthBytes } of blocks) {
        const fd = openSync(path, "r+");
        try {
          punchHole(fd, fileOffset, lengthBytes);
        } finally {
          closeSync(fd);
        }
      }
    },
    catch: (cause) => fail("memory-unreadable", BEGIN, cause instanceof Error ? cause.message : String(cause)),
  });

const pagingOf = (parts: Omit<Paging, "open" | "seen" | "held"> & { readonly progress: Progress }): Paging => {
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

const GO_ON = "go on with a restore";

/**
 * Goes on with what a former life of this loader has begun. Returns once all pages are there, or there is nothing to bring any more. Fails
 * when the guest is gone, and when that life had not won the record: then what had come of the guest goes, too, and nobody can win it late.
 */
export const goOnRestoring = Effect.fnUntraced(function* (
  facts: PagingFacts,
  tools: HostTools,
  progress: Progress,
  /** Called once the guest is known to be handed over: until then nobody else may start it. */
  settled: () => void,
): Effect.fn.Return<void, GodwitError, Scope.Scope> {
  const { settings, registry, register } = tools;
  const { asked } = facts;
  const over = Effect.sync(() => forgetPaging(settings.runtimeDirectory, asked));
  const spec = registry.find(asked.guest);
  const found = spec === null ? null : yield* described(spec);
  if (spec === null || found === null || !isSameMemory(memoryOf(found), facts.memory)) {
    yield* over;
    return yield* fail("guest-failed", GO_ON, `guest ${asked.guest} is gone, or is another one`);
  }
  // One that runs has won it.
  if (found.runState !== "running" && !(yield* isOurs(asked, spec.epoch ?? 0, settings, register))) {
    if (spec.moving === "arriving") yield* discardArrived(spec, registry);
    yield* over;
    const reason = `the loader ended before guest ${asked.guest} was claimed; restore it again`;
    return yield* fail("checkpoint-failed", GO_ON, reason);
  }
  settled();
  yield* Effect.logInfo(`going on where a former loader stopped: guest ${spec.name} runs, and waits for its pages`);
  if (found.pagesMissing !== true) return yield* over;
  const guest = yield* openGuest(spec);
  const memory = yield* guest.expectPages(found.blocks);
  yield* bringPages(pagingOf({ facts, spec, settings, memory, blocks: found.blocks, progress }));
});

/** Null once it has ended. */
const described: (spec: GuestSpec) => Effect.Effect<GuestDescription | null, GodwitError> = Effect.fnUntraced(
  function* (spec) {
    for (;;) {
      const found = yield* Effect.result(Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.describe)));
      if (found._tag === "Success") return found.success;
      const state = yield* lookAt(spec);
      if (state === "gone" || state === "shutdown" || state === "failed") return null;
      yield* Effect.logWarning(`guest ${spec.name} does not say how it stands: ${found.failure.message}`);
      yield* Effect.sleep(ASK_AGAIN_MS);
    }
  },
);
