/**
 * Brings the memory of a guest that runs already from its checkpoint, to the end, whatever comes in between:
 *
 *     serving --all there--> ended          the guest waits for nothing any more
 *     serving --damaged----> given up       the guest has failed, with the reason
 *     serving --guest gone-> ended          with the reason
 *     serving --anything else, the checkpoint gone among it--> the guest waits; looked for again, and served again
 *
 * What lets the guest wait belongs to its own process, so this one may die at any moment: the guest waits for its successor.
 */
import type { Settings } from "@godwit/actor";
import { type BlockSums, type Checkpoint, MalformedCheckpoint, readStoredPages } from "@godwit/checkpoint";
import { type GuestSpec, lookAt, type MissingMemory } from "@godwit/guest";
import { openRamReader, PAGE_BYTES, type RamBlock } from "@godwit/memory";
import * as Pace from "@godwit/multifd/pace";
import { type Failure, fromError, GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Latch from "effect/Latch";
import type * as Scope from "effect/Scope";
import {
  addLatency,
  alreadyThere,
  CHUNK_PAGES_MAX,
  handBack,
  type Latencies,
  type LatencySummary,
  makeLatencies,
  makePager,
  nextWork,
  type Pager,
  type PagerWork,
  summaryOf,
  touch,
} from "./decisions/index.ts";
import { damagedPage } from "./kernel/damage.ts";
import { type CheckpointIdentity, forgetPaging, type PagingFacts } from "./paging-file.ts";

/** Between two tries to go on after something that may pass, ms. */
const AGAIN_MS = 2000;
/** How often is told how far it is, ms. */
const TELL_MS = 50;
/** Pages that nobody waits for may be on their way to the guest's memory, bytes: a touched page comes behind them. Two chunks. */
const AHEAD_BYTES_MAX = 2 * CHUNK_PAGES_MAX * PAGE_BYTES;

/** A checkpoint that is open for as long as its scope. */
export interface OpenCheckpoint {
  readonly fd: number;
  readonly checkpoint: Checkpoint;
  readonly sums: ReadonlyArray<BlockSums> | null;
  readonly identity: CheckpointIdentity;
}

export interface PagingProgress {
  readonly readBytes: number;
  /** Of pages with content. */
  readonly leftBytes: number;
  /** Pages that were waited for. */
  readonly requests: number;
  readonly latency: Pick<LatencySummary, "p50" | "p99" | "max">;
}

export interface Paging {
  readonly spec: GuestSpec;
  readonly facts: PagingFacts;
  readonly settings: Settings;
  readonly memory: MissingMemory;
  /** The guest's own, in the order in which `memory` has them. */
  readonly blocks: ReadonlyArray<RamBlock>;
  /** The checkpoint of the facts, or why it cannot be had. */
  readonly open: Effect.Effect<OpenCheckpoint, GodwitError, Scope.Scope>;
  readonly seen: (progress: PagingProgress) => void;
  /** What the guest waits for, besides its pages; null: nothing any more. */
  readonly held: (obstacle: Failure | null) => void;
}

/** What keeps pages from coming: for good, or for now. */
type Obstacle = { readonly _tag: "Damaged" | "Stuck"; readonly reason: string };

/** What is known from one try to the next. */
interface Run extends Paging {
  /** Null until the checkpoint was opened once. */
  pager: Pager | null;
  /** Open when somebody has begun to wait. */
  readonly bell: Latch.Latch;
  readonly pace: Pace.Pace;
  readonly latencies: Latencies;
  /** Reused for each chunk. */
  readonly buffer: Uint8Array;
  readBytes: number;
  toldAt: number;
}

const refuse = (code: GodwitError["code"], reason: string): GodwitError =>
  new GodwitError({ code, actor: "loader", side: "destination", step: "bring the guest's pages", reason });

/** Returns once all pages are there. Fails when they cannot all be had, and then the guest has ended or failed. */
export const bringPages = Effect.fnUntraced(function* (paging: Paging): Effect.fn.Return<void, GodwitError> {
  const { facts, spec, settings, memory } = paging;
  const run: Run = {
    ...paging,
    pager: null,
    bell: Latch.makeUnsafe(),
    pace: Pace.make(facts.restBytesPerSecond, performance.now()),
    latencies: makeLatencies(),
    buffer: new Uint8Array(CHUNK_PAGES_MAX * PAGE_BYTES),
    readBytes: 0,
    toldAt: Number.NEGATIVE_INFINITY,
  };
  let told = "";
  const over = Effect.sync(() => forgetPaging(settings.runtimeDirectory, facts.asked));
  for (;;) {
    const end = yield* Effect.result(serve(run));
    if (end._tag === "Success") return yield* over;
    const { _tag, reason } = end.failure;
    if (_tag === "Damaged") {
      yield* Effect.logError(`guest ${spec.name} cannot go on: ${reason}`);
      yield* memory.giveUp(reason).pipe(Effect.andThen(over));
      return yield* refuse("bad-checkpoint", `${reason}; the guest was stopped`);
    }
    const state = yield* lookAt(spec);
    if (state === "gone" || state === "shutdown" || state === "failed") {
      yield* over;
      return yield* refuse("guest-failed", `guest ${spec.name} is ${state}, before all of its memory was there`);
    }
    paging.held(fromError(refuse("checkpoint-failed", reason)));
    if (reason !== told)
      yield* Effect.logError(`guest ${spec.name} waits for pages of ${facts.place.path} that cannot be had: ${reason}`);
    told = reason;
    yield* Effect.sleep(AGAIN_MS);
  }
});

const stuck = (cause: unknown): Obstacle => ({
  _tag: "Stuck",
  reason: cause instanceof Error ? cause.message : String(cause),
});

/** Once through: until all is there, or something keeps it from that. */
const serve = (run: Run): Effect.Effect<void, Obstacle> =>
  Effect.scoped(
    Effect.gen(function* () {
      const opened = yield* run.open.pipe(Effect.mapError(stuck));
      const pager = run.pager ?? (yield* Effect.try({ try: () => pagerOf(run, opened), catch: stuck }));
      run.pager = pager;
      run.held(null);
      const touches = run.memory.touches(({ block, page }) => {
        touch(pager, block, page, performance.now());
        run.bell.openUnsafe();
      });
      const all = placeAll(run, pager, opened).pipe(Effect.andThen(Effect.mapError(run.memory.end, stuck)));
      yield* Effect.raceFirst(all, Effect.mapError(touches, stuck));
    }),
  );

/** Throws what the file system throws, and Error for a checkpoint of other memory. */
const pagerOf = ({ blocks }: Run, { checkpoint }: OpenCheckpoint): Pager => {
  const pager = makePager(blocks.map((block) => placeOf(checkpoint, block)));
  // What the guest's memory file has data for was placed by an earlier life: a page is in the file only once its bytes are.
  blocks.forEach((block, index) => {
    const reader = openRamReader(block);
    try {
      const { pages } = pager.blocks[index]!;
      for (let run = reader.nextDataRun(0); run !== null; ) {
        alreadyThere(pager, index, run.first, run.count);
        run = run.first + run.count < pages ? reader.nextDataRun(run.first + run.count) : null;
      }
    } finally {
      reader.close();
    }
  });
  return pager;
};

const placeOf = (checkpoint: Checkpoint, { name, lengthBytes }: RamBlock): Checkpoint["blocks"][number] => {
  const place = checkpoint.blocks.find((stored) => stored.name === name);
  if (place?.lengthBytes === lengthBytes) return place;
  throw new Error(`the checkpoint has no RAMBlock ${name} of ${lengthBytes} bytes`);
};

/** Hands all pages to the guest's memory, those first that it waits for. */
const placeAll = Effect.fnUntraced(function* (
  run: Run,
  pager: Pager,
  opened: OpenCheckpoint,
): Effect.fn.Return<void, Obstacle> {
  const { bell, pace, memory } = run;
  for (;;) {
    bell.closeUnsafe();
    const now = performance.now();
    const waitMs = Pace.waitMs(pace, now);
    const work = nextWork(pager, waitMs > 0 ? "later" : "now");
    if (now - run.toldAt >= TELL_MS) tell(run, pager, now);
    if (work !== null) {
      yield* perform(run, opened, work).pipe(Effect.onError(() => Effect.sync(() => handBack(pager, work))));
      if (work.since !== null) addLatency(run.latencies, performance.now() - work.since);
      else if (work._tag === "Copy") {
        Pace.spend(pace, work.pages * PAGE_BYTES);
        yield* memory.placed(AHEAD_BYTES_MAX);
      }
    } else if (pager.leftPages === 0) return tell(run, pager, now);
    else yield* bell.await.pipe(Effect.timeoutOption(waitMs));
  }
});

const perform = (run: Run, opened: OpenCheckpoint, work: PagerWork): Effect.Effect<void, Obstacle> => {
  const { memory } = run;
  if (work._tag === "Zero") return Effect.try({ try: () => memory.zero(work.block, work.page, 1), catch: stuck });
  const { block, first, pages } = work;
  const { name } = run.blocks[block]!;
  const bytes = run.buffer.subarray(0, pages * PAGE_BYTES);
  return Effect.tryPromise({
    try: async () => {
      await readStoredPages(opened.fd, placeOf(opened.checkpoint, run.blocks[block]!), first, bytes);
      const sums = opened.sums?.find((one) => one.name === name)?.sums ?? null;
      const damaged = sums === null ? -1 : damagedPage(bytes, sums, first);
      if (damaged !== -1) return damagedAt(name, damaged);
      memory.copy(block, first, bytes);
      run.readBytes += bytes.length;
      return null;
    },
    // A file that ends too early holds these pages as little as one that was written over.
    catch: (cause): Obstacle =>
      cause instanceof MalformedCheckpoint ? { _tag: "Damaged", reason: cause.message } : stuck(cause),
  }).pipe(
    // Neither the file nor the buffer may go while they are read from and into.
    Effect.uninterruptible,
    Effect.flatMap((damage) => (damage === null ? Effect.void : Effect.fail(damage))),
  );
};

const damagedAt = (block: string, page: number): Obstacle => ({
  _tag: "Damaged",
  reason: `page ${page} of RAMBlock ${block} (byte ${page * PAGE_BYTES}) is damaged: its checksum is not the one that was saved`,
});

const tell = (run: Run, pager: Pager, now: number): void => {
  run.toldAt = now;
  const { count, p50, p99, max } = summaryOf(run.latencies);
  run.seen({
    readBytes: run.readBytes,
    leftBytes: pager.leftPages * PAGE_BYTES,
    requests: count,
    latency: { p50, p99, max },
  });
};
