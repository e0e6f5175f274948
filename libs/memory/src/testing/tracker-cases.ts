import assert from "node:assert/strict";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import type * as Scope from "effect/Scope";
import type { DirtyTracker, TrackedProcess } from "../dirty-tracker.ts";
import type { TrackerError } from "../errors.ts";
import { type Copy, makeCopy } from "./copy.ts";
import { startWriter, type Writer } from "./writer.ts";

/** Opens the tracker that is to be judged. */
export type OpenTracker = (
  process: TrackedProcess,
  shadowDirectory: string,
) => Effect.Effect<DirtyTracker, TrackerError, Scope.Scope>;

/** One statement about every dirty tracker, and how to check it. */
export interface TrackerCase {
  readonly statement: string;
  readonly check: (open: OpenTracker) => Effect.Effect<void, TrackerError, Scope.Scope>;
}

/** Pages of the two blocks of a trial: the first one is more than one chunk and no multiple of any, both share a file. */
const BLOCK_PAGES = [2500, 300] as const;
const FIRST = BLOCK_PAGES[0];
const ALL = BLOCK_PAGES[0] + BLOCK_PAGES[1];

type Runs = ReadonlyArray<readonly [block: number, firstPage: number, pages: number]>;

/** A writer, the tracker under test on it, and the copy that a destination would make. */
interface Trial {
  readonly writer: Writer;
  readonly tracker: DirtyTracker;
  readonly copy: Copy;
  /** Syncs and gives the runs that were reported. */
  readonly sync: Effect.Effect<Runs, TrackerError>;
  /** Syncs, then reads all that was reported. */
  readonly syncAndRead: Effect.Effect<Runs, TrackerError>;
}

const start = (open: OpenTracker): Effect.Effect<Trial, TrackerError, Scope.Scope> =>
  Effect.gen(function* () {
    const writer = yield* startWriter({ blockPages: BLOCK_PAGES, userfaultfd: true });
    const tracker = yield* open(writer.process, writer.directory);
    const copy = yield* Effect.acquireRelease(
      Effect.sync(() => makeCopy(tracker, writer.process.blocks)),
      (made) => Effect.sync(made.close),
    );
    const sync = Effect.gen(function* () {
      const runs: Array<readonly [number, number, number]> = [];
      const report = yield* tracker.sync((block, firstPage, pages) => runs.push([block, firstPage, pages]));
      assert.equal(report.dirtyPages, pageTotal(runs), "the report counts the pages of its runs");
      return runs;
    });
    const syncAndRead = Effect.map(sync, (runs) => {
      for (const run of runs) copy.take(...run);
      return runs;
    });
    return { writer, tracker, copy, sync, syncAndRead };
  });

const pageTotal = (runs: Runs) => runs.reduce((sum, [, , pages]) => sum + pages, 0);

/** All pages of runs as "block:page", sorted; fails when a page is reported twice. */
const pagesOf = (runs: Runs): ReadonlyArray<string> => {
  const pages = runs.flatMap(([block, first, count]) =>
    Array.from({ length: count }, (_, page) => `${block}:${first + page}`),
  );
  assert.equal(new Set(pages).size, pages.length, "runs of one sync do not overlap");
  return pages.sort();
};

const everyPage = pagesOf(BLOCK_PAGES.map((pages, block) => [block, 0, pages] as const));

/** What each tracker may report beyond what was written: nothing, since the writer only writes what it is told to. */
const assertPages = (runs: Runs, expected: ReadonlyArray<string>) =>
  assert.deepEqual(pagesOf(runs), [...expected].sort());

const fill = (firstPage: number, pages: number, value: number) => ({ _tag: "Fill", firstPage, pages, value }) as const;

const statement = (
  text: string,
  body: (trial: Trial) => Effect.Effect<void, TrackerError, Scope.Scope>,
): TrackerCase => ({
  statement: text,
  check: (open) => Effect.flatMap(start(open), body),
});

/** Syncs that a race is watched for. */
const RACE_SYNCS = 60;

export const trackerCases: ReadonlyArray<TrackerCase> = [
  statement("the first sync reports every page, also those never touched", ({ writer, syncAndRead, copy }) =>
    Effect.gen(function* () {
      yield* writer.tell(fill(10, 5, 7));
      assertPages(yield* syncAndRead, everyPage);
      assert.deepEqual(copy.wrongPages(), []);
    }),
  ),
  statement("a sync after which nothing was written reports nothing", ({ writer, sync }) =>
    Effect.gen(function* () {
      yield* writer.tell(fill(0, ALL, 1));
      yield* sync;
      assertPages(yield* sync, []);
      assertPages(yield* sync, []);
    }),
  ),
  statement(
    "a sync reports exactly the pages written since the last one, in the block they belong to",
    ({ writer, syncAndRead, copy }) =>
      Effect.gen(function* () {
        yield* writer.tell(fill(0, ALL, 1));
        yield* syncAndRead;
        for (const [first, pages] of [
          [0, 1],
          [FIRST - 1, 2],
          [2047, 2],
          [ALL - 1, 1],
        ] as const)
          yield* writer.tell(fill(first, pages, 2));
        assertPages(yield* syncAndRead, ["0:0", `0:${FIRST - 1}`, "1:0", "0:2047", "0:2048", `1:${ALL - 1 - FIRST}`]);
        assertPages(yield* syncAndRead, []);
        assert.deepEqual(copy.wrongPages(), []);
      }),
  ),
  statement("a page that was never touched before is reported when it is written", ({ writer, syncAndRead, copy }) =>
    Effect.gen(function* () {
      yield* syncAndRead;
      yield* writer.tell(fill(77, 3, 9));
      assertPages(yield* syncAndRead, ["0:77", "0:78", "0:79"]);
      assert.deepEqual(copy.wrongPages(), []);
    }),
  ),
  statement("a page that becomes zero is reported like any other", ({ writer, syncAndRead, copy }) =>
    Effect.gen(function* () {
      yield* writer.tell(fill(0, ALL, 1));
      yield* syncAndRead;
      yield* writer.tell(fill(100, 2, 0));
      assertPages(yield* syncAndRead, ["0:100", "0:101"]);
      yield* writer.tell(fill(101, 1, 3));
      assertPages(yield* syncAndRead, ["0:101"]);
      assert.deepEqual(copy.wrongPages(), []);
    }),
  ),
  statement("every second page written gives every second page reported", ({ writer, syncAndRead, copy }) =>
    Effect.gen(function* () {
      yield* writer.tell(fill(0, ALL, 1));
      yield* syncAndRead;
      yield* writer.tell({ _tag: "Scatter", stride: 2, value: 4 });
      assert.equal(pageTotal(yield* syncAndRead), ALL / 2);
      assert.deepEqual(copy.wrongPages(), []);
    }),
  ),
  statement(
    "a page written between its report and the reading of it is reported again",
    ({ writer, sync, syncAndRead, copy }) =>
      Effect.gen(function* () {
        yield* syncAndRead;
        yield* writer.tell(fill(5, 1, 1));
        const runs = yield* sync;
        yield* writer.tell(fill(5, 1, 2));
        for (const run of runs) copy.take(...run);
        assertPages(yield* syncAndRead, ["0:5"]);
        assert.deepEqual(copy.wrongPages(), []);
      }),
  ),
  statement(
    "a page that is B only while it is read, and A before and after, leaves A in the copy",
    ({ writer, sync, syncAndRead, copy }) =>
      Effect.gen(function* () {
        yield* writer.tell(fill(5, 1, 0xa));
        const runs = yield* sync;
        yield* writer.tell(fill(5, 1, 0xb));
        for (const run of runs) copy.take(...run);
        yield* writer.tell(fill(5, 1, 0xa));
        yield* syncAndRead;
        assert.deepEqual(copy.wrongPages(), []);
      }),
  ),
  statement(
    "a sync that was interrupted is made up for: the next one loses nothing",
    ({ writer, sync, syncAndRead, copy }) =>
      Effect.gen(function* () {
        yield* syncAndRead;
        yield* writer.tell(fill(0, ALL, 6));
        const interrupted = yield* Effect.forkChild(sync, { startImmediately: true });
        yield* Fiber.interrupt(interrupted);
        yield* syncAndRead;
        assert.deepEqual(copy.wrongPages(), []);
        assertPages(yield* sync, []);
      }),
  ),
  statement(
    "a sync whose receiver throws is made up for: the next one loses nothing",
    ({ writer, tracker, syncAndRead, copy }) =>
      Effect.gen(function* () {
        yield* syncAndRead;
        yield* writer.tell(fill(0, ALL, 8));
        const refused = tracker.sync(() => {
          throw new Error("the receiver is full");
        });
        const exit = yield* Effect.exit(refused);
        assert.equal(exit._tag, "Failure");
        yield* syncAndRead;
        assert.deepEqual(copy.wrongPages(), []);
      }),
  ),
  statement(
    "no update is lost while the guest writes at full speed during syncs and reads",
    ({ writer, sync, syncAndRead, copy }) =>
      Effect.gen(function* () {
        yield* writer.tell({ _tag: "Race" });
        let late: Runs = [];
        for (let round = 0; round < RACE_SYNCS; round++) {
          const runs = yield* sync;
          // Half of what a sync reports is read after it, the other half only after the next one: both are allowed.
          for (const run of late) copy.take(...run);
          late = runs.filter((_, index) => index % 2 === round % 2);
          for (const run of runs) if (!late.includes(run)) copy.take(...run);
        }
        for (const run of late) copy.take(...run);
        const { writes } = yield* writer.tell({ _tag: "Stop" });
        assert.ok(writes > 1000, `the writer was busy (${writes} writes)`);
        yield* syncAndRead;
        assert.deepEqual(copy.wrongPages(), []);
        assertPages(yield* sync, []);
      }),
  ),
  statement("after the guest's process has ended, a sync fails or tells the truth", ({ writer, syncAndRead, copy }) =>
    Effect.gen(function* () {
      yield* syncAndRead;
      yield* writer.tell(fill(3, 4, 5));
      yield* writer.kill;
      const exit = yield* Effect.exit(syncAndRead);
      if (exit._tag === "Success") assert.deepEqual(copy.wrongPages(), []);
      else assert.match(String(exit.cause), /TrackerError/);
    }),
  ),
];
