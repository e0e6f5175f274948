/**
 * Brings the memory of a guest that runs already from its checkpoint, to the end, whatever comes in between:
 *
 *     serving --all there--> ended          the guest waits for nothing any more
 *     serving --damaged----> given up       the guest has failed, with the reason
 *     serving --guest gone-> ended          with the reason
 *     serving --anything else, the checkpoint gone among it--> the guest waits; looked for again, and served again
 *
 * The guest's process holds the userfaultfd, so this one may die at any moment: the guest waits for its successor.
 */
import { closeSync, openSync } from "node:fs";
import type { Settings } from "@godwit/actor";
import type { BlockSums, Checkpoint } from "@godwit/checkpoint";
import {
  endListening,
  type GuestSpec,
  giveUpPages,
  listenForPages,
  lookAt,
  type MissingPages,
  missingPages,
  openGuest,
} from "@godwit/guest";
import { borrowDescriptor, punchHole } from "@godwit/host";
import { type Failure, fromError, GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { memoryOf } from "./guest-memory.ts";
import { type CheckpointIdentity, forgetPaging, notePaging, type PagingFacts } from "./paging-file.ts";
import type { PagingBlock, PagingEnd, PagingJob, PagingProgress } from "./paging-messages.ts";
import type { PagingThread } from "./paging-thread.ts";

/** Between two tries to go on after something that may pass, ms. */
const AGAIN_MS = 2000;

type BuiltinSpec = Extract<GuestSpec, { readonly driver: "builtin" }>;

/** A checkpoint that is open for as long as its scope. */
export interface OpenCheckpoint {
  readonly fd: number;
  readonly checkpoint: Checkpoint;
  readonly sums: ReadonlyArray<BlockSums> | null;
  readonly identity: CheckpointIdentity;
}

export interface Paging {
  readonly thread: PagingThread;
  readonly spec: BuiltinSpec;
  readonly facts: PagingFacts;
  readonly settings: Settings;
  /** The checkpoint of the facts, or why it cannot be had. */
  readonly open: Effect.Effect<OpenCheckpoint, GodwitError, Scope.Scope>;
  readonly seen: (progress: PagingProgress) => void;
  /** What the guest waits for, besides its pages; null: nothing any more. */
  readonly held: (obstacle: Failure | null) => void;
}

const refuse = (code: GodwitError["code"], reason: string): GodwitError =>
  new GodwitError({ code, actor: "loader", side: "destination", step: "bring the guest's pages", reason });

/** Lets the guest wait for its pages, and notes for a restarted loader where they come from. Before the guest may run. */
export const expectPages = Effect.fnUntraced(function* (
  spec: BuiltinSpec,
  facts: Omit<PagingFacts, "memory">,
  settings: Settings,
): Effect.fn.Return<PagingFacts, GodwitError> {
  yield* emptyMemory(spec);
  const { pid, block } = yield* listenForPages(spec);
  return yield* Effect.try({
    try: () => {
      const whole = { ...facts, memory: memoryOf({ pid, blocks: [block] }) };
      notePaging(settings.runtimeDirectory, whole);
      return whole;
    },
    catch: (cause) => refuse("checkpoint-failed", cause instanceof Error ? cause.message : String(cause)),
  });
});

/** A guest that had waited for something else may have pages of that, and what is there is never overwritten. */
const emptyMemory = (spec: BuiltinSpec): Effect.Effect<void, GodwitError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { blocks } = yield* Effect.flatMap(openGuest(spec), (guest) => guest.describe);
      for (const { path, fileOffset, lengthBytes } of blocks) {
        const fd = yield* descriptor(() => openSync(path, "r+"));
        punchHole(fd, fileOffset, lengthBytes);
      }
    }),
  );

/** Returns once all pages are there. Fails when they cannot all be had, and then the guest has ended or failed. */
export const bringPages = Effect.fnUntraced(function* (paging: Paging): Effect.fn.Return<void, GodwitError> {
  const { facts, spec, settings } = paging;
  let told = "";
  const over = Effect.sync(() => forgetPaging(settings.runtimeDirectory, facts.asked));
  for (;;) {
    const end = yield* serve(paging).pipe(
      Effect.catch((error): Effect.Effect<PagingEnd> => Effect.succeed({ _tag: "Stuck", reason: error.message })),
    );
    if (end._tag === "AllThere") {
      // A guest that cannot be told waits for nothing; it only may not be moved until it was.
      if ((yield* Effect.result(endListening(spec)))._tag === "Success") return yield* over;
    } else if (end._tag === "Damaged") {
      yield* Effect.logError(`guest ${spec.name} cannot go on: ${end.reason}`);
      yield* giveUpPages(spec, end.reason).pipe(Effect.andThen(over));
      return yield* refuse("bad-checkpoint", `${end.reason}; the guest was stopped`);
    }
    const state = yield* lookAt(spec);
    if (state === "gone" || state === "shutdown" || state === "failed") {
      yield* over;
      return yield* refuse("guest-failed", `guest ${spec.name} is ${state}, before all of its memory was there`);
    }
    const reason = "reason" in end ? end.reason : "the guest does not answer";
    paging.held(fromError(refuse("checkpoint-failed", reason)));
    if (reason !== told)
      yield* Effect.logError(`guest ${spec.name} waits for pages of ${facts.place.path} that cannot be had: ${reason}`);
    told = reason;
    yield* Effect.sleep(AGAIN_MS);
  }
});

/** Once through: until all is there, or something keeps it from that. */
const serve = (paging: Paging): Effect.Effect<PagingEnd, GodwitError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const missing = yield* missingPages(paging.spec);
      if (missing === null) return { _tag: "AllThere" };
      const opened = yield* paging.open;
      const job = yield* jobOf(missing, opened, paging.facts.restBytesPerSecond);
      paging.held(null);
      return yield* paging.thread.run(job, paging.seen);
    }),
  );

const jobOf = (
  { pid, fd, address, block }: MissingPages,
  { fd: checkpointFd, checkpoint, sums }: OpenCheckpoint,
  restBytesPerSecond: number,
): Effect.Effect<Omit<PagingJob, "stop">, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    const uffd = yield* descriptor(() => borrowDescriptor(pid, fd));
    const ramFd = yield* descriptor(() => openSync(block.path, "r"));
    const stored = checkpoint.blocks.find(({ name }) => name === block.name);
    if (stored === undefined || stored.lengthBytes !== block.lengthBytes)
      return yield* refuse(
        "incompatible",
        `the checkpoint has no RAMBlock ${block.name} of ${block.lengthBytes} bytes`,
      );
    const paged: PagingBlock = {
      name: block.name,
      pages: stored.pages,
      address,
      ramFd,
      ramOffset: block.fileOffset,
      present: stored.present.words,
      pagesOffset: stored.pagesOffset,
      sums: sums?.find(({ name }) => name === block.name)?.sums ?? null,
    };
    return { uffd, checkpoint: checkpointFd, blocks: [paged], restBytesPerSecond };
  });

const descriptor = (open: () => number): Effect.Effect<number, GodwitError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: open,
      catch: (cause) => refuse("memory-unreadable", cause instanceof Error ? cause.message : String(cause)),
    }),
    (fd) => Effect.sync(() => closeSync(fd)),
  );
