/** What a session has to do with pages that come after its guest runs: which they are, that the guest waits for them, and their coming. */
import { asGodwitError, nextTurn, type Settings } from "@godwit/actor";
import { Fabric, type Message } from "@godwit/fabric";
import type { DirectDestination } from "@godwit/fabric/direct";
import type { Guest, MissingMemory } from "@godwit/guest";
import { Bitmap } from "@godwit/memory";
import { digestOfBitmaps, GodwitError, type PostcopyInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import type { Destination, DestinationEvent } from "./decisions/index.ts";
import { blocksOf, type Fetching, startFetching } from "./fetching.ts";
import { askForBitmaps } from "./missing-bitmaps.ts";
import { createMissingFile, type MissingFile, reopenMissingFile } from "./missing-file.ts";
import type { Prepared } from "./preparing.ts";

/** Runs of pages thrown away between two turns of the event loop: about 3 us each. */
const RUNS_PER_TURN = 500;
/** A guest whose pages could not be begun to be fetched is tried again, ms. */
const FETCH_AGAIN_MS = 500;

export interface PostcopySession {
  /** Asks the source which pages are missing; harmless while it is being asked. */
  readonly askMissing: () => void;
  /** Throws old pages away, and lets the guest wait for them. */
  readonly expectPages: Effect.Effect<void, GodwitError>;
  /** Brings the missing pages until all are there; harmless when said again. */
  readonly fetch: () => void;
  readonly say: (word: "Pause" | "Recover") => void;
  /** The destination's parameters have changed. */
  readonly tune: () => void;
  /** Packets of the multifd channels, opened; null while they are not this one's. */
  readonly take: (messages: ReadonlyArray<Message>) => Effect.Effect<void> | null;
  readonly giveUp: (reason: string) => Effect.Effect<void, GodwitError>;
  /** Nothing watches the guest any longer, and nothing is noted of it. */
  readonly end: Effect.Effect<void>;
}

/** The session's guest, while it may be worked on. */
export type Incoming = Pick<Prepared, "guest" | "receiver" | "blocks" | "file">;

/** Before the guest is prepared, what is begun here waits for ever. The scope's end ends it. */
export const makePostcopySession = Effect.fnUntraced(function* (
  destination: Destination,
  session: {
    readonly settings: Settings;
    readonly direct: DirectDestination;
    readonly dispatch: (event: DestinationEvent) => void;
    /** Opens what was sealed. */
    readonly open: (messages: ReadonlyArray<Message>) => ReadonlyArray<Message>;
    readonly incoming: () => Incoming | null;
  },
): Effect.fn.Return<PostcopySession, never, Fabric | Scope.Scope> {
  const { settings, direct, dispatch, incoming } = session;
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  /** The pages that the guest begins without, once they are known; its memory, once it waits for them. */
  let missing: ReadonlyArray<Bitmap.Bitmap> = [];
  let memory: MissingMemory | null = null;
  let missingFile: MissingFile | null = null;
  let fetching: Fetching | null = null;
  let isFetching = false;
  let isAsking = false;
  /** The last word to a fetching that may not have begun yet. */
  let lastWord: "Pause" | "Recover" | null = null;

  const closeFile = Effect.sync(() => {
    missingFile?.close();
    missingFile = null;
  });
  // Before the scope of the fetching, so that it is closed after it: without the file every page would pass for one that is there.
  yield* Effect.addFinalizer(() => closeFile);
  const fetchingScope = yield* Scope.fork(scope);
  const end = Effect.suspend(() => {
    fetching = null;
    return Effect.andThen(Scope.close(fetchingScope, Exit.void), closeFile);
  });
  const withIncoming = <A>(use: (found: Incoming) => Effect.Effect<A, GodwitError>): Effect.Effect<A, GodwitError> =>
    Effect.suspend(() => {
      const found = incoming();
      return found === null ? Effect.never : use(found);
    });
  const memoryOf = (guest: Guest, blocks: Incoming["blocks"]): Effect.Effect<MissingMemory, GodwitError> =>
    guest.expectPages(blocks).pipe(Effect.provideService(Scope.Scope, fetchingScope));

  const ask: Effect.Effect<void> = askForBitmaps(destination).pipe(
    Effect.provideService(Fabric, fabric),
    Effect.tap((bitmaps) =>
      Effect.sync(() => {
        const digest = digestOfBitmaps(bitmaps.map(({ words }) => words));
        // Only what the record promises is thrown away, and only once.
        const isPromised = destination.promise?.manifest.postcopy?.digest === digest;
        if (isPromised && destination.postcopy?.isKnown === false) missing = bitmaps;
        dispatch({ _tag: "MissingKnown", digest });
      }),
    ),
    // It is asked again.
    Effect.catch((error) => Effect.logInfo(`the source does not name the missing pages yet: ${error.message}`)),
    Effect.ensuring(
      Effect.sync(() => {
        isAsking = false;
      }),
    ),
  );

  /** What was sent before and written since must not be run on. */
  const expectPages = withIncoming(({ guest, receiver, blocks, file }) =>
    Effect.gen(function* () {
      if ((yield* guest.describe).runState === "running") return yield* runsAlready(destination.guest);
      for (const [block, bitmap] of missing.entries())
        yield* discardPages(bitmap, (first, pages) => receiver.discard(block, first, pages));
      yield* closeFile;
      missingFile = yield* Effect.try({
        try: () => createMissingFile(file.missingPath, missing),
        catch: asGodwitError("loader", "note which pages are missing"),
      });
      memory = yield* memoryOf(guest, blocks);
    }),
  );

  let lastTold = "";
  const tellOnce = (line: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (line === lastTold) return Effect.void;
      lastTold = line;
      return Effect.logError(line);
    });
  const fetch: Effect.Effect<void> = withIncoming(({ guest, blocks, file }) =>
    Effect.gen(function* () {
      // Null: a former life of this loader has begun it.
      missingFile ??= reopenMissingFile(file.missingPath, blocksOf(destination));
      if (missingFile === null) return yield* missingUnknown(destination.guest);
      // A former life has brought all of it, told the guest so, and did not live to say it.
      if (memory === null && (yield* guest.describe).pagesMissing !== true)
        return dispatch({ _tag: "Fetched", info: NOTHING_LEFT, isAllThere: true });
      memory ??= yield* memoryOf(guest, blocks);
      const known = missingFile.bitmaps;
      missingFile.atFirst.forEach((missing, block) => {
        const notPlaced = memory?.notPlaced?.[block];
        if (notPlaced === undefined) return;
        known[block]!.words.set(missing.words);
        Bitmap.andInto(known[block]!, notPlaced);
      });
      fetching = yield* startFetching(destination, {
        settings,
        direct,
        memory,
        missing: known,
        open: session.open,
        seen: (info, isAllThere) => {
          dispatch({ _tag: "Fetched", info, isAllThere });
          // The session may be asked about for minutes yet, and its guest may have moved on by then.
          if (isAllThere) run(Effect.forkIn(end, scope));
        },
      });
      if (lastWord !== null) fetching.say(lastWord);
      fetching.tune();
    }).pipe(Effect.provideService(Scope.Scope, fetchingScope), Effect.provideService(Fabric, fabric)),
  ).pipe(
    Effect.catch((error) =>
      Effect.andThen(
        tellOnce(`guest ${destination.guest} waits for its pages, and they are not fetched: ${error.message}`),
        Effect.delay(
          Effect.suspend(() => fetch),
          FETCH_AGAIN_MS,
        ),
      ),
    ),
  );

  return {
    askMissing: () => {
      // One question at a time: the bitmaps of a large guest are long.
      if (isAsking) return;
      isAsking = true;
      run(Effect.forkIn(ask, scope));
    },
    expectPages,
    fetch: () => {
      if (isFetching) return;
      isFetching = true;
      run(Effect.forkIn(fetch, fetchingScope));
    },
    say: (word) => {
      lastWord = word;
      fetching?.say(word);
    },
    tune: () => fetching?.tune(),
    take: (messages) => fetching?.take(messages) ?? null,
    giveUp: (reason) =>
      withIncoming(({ guest, blocks }) =>
        Effect.gen(function* () {
          memory ??= yield* memoryOf(guest, blocks);
          yield* memory.giveUp(reason);
        }),
      ),
    end,
  };
});

/** Some runs at a time: other sessions, and heartbeats, must not wait for all of them. */
const discardPages = Effect.fnUntraced(function* (
  bitmap: Bitmap.Bitmap,
  discard: (firstPage: number, pages: number) => void,
): Effect.fn.Return<void, GodwitError> {
  const discardSome = (from: Bitmap.PageRun): Bitmap.PageRun | null => {
    let run: Bitmap.PageRun | null = from;
    for (let runs = 0; runs < RUNS_PER_TURN && run !== null; runs++) {
      discard(run.first, run.count);
      run = Bitmap.nextRun(bitmap, run.first + run.count, bitmap.pageCount);
    }
    return run;
  };
  let run = Bitmap.nextRun(bitmap, 0, bitmap.pageCount);
  while (run !== null) {
    const from = run;
    run = yield* Effect.try({
      try: () => discardSome(from),
      catch: asGodwitError("loader", "throw old pages away"),
    });
    yield* nextTurn;
  }
});

const NOTHING_LEFT: PostcopyInfo = {
  ...{ state: "active", remaining: 0, transferred: 0, requests: 0, blocktime: 0, "vcpu-blocktime": [] },
  latency: { p50: 0, p90: 0, p99: 0, max: 0 },
};

/** What it has written since it runs must not be thrown away. */
const runsAlready = (guest: string): GodwitError =>
  new GodwitError({
    code: "wrong-state",
    actor: "loader",
    side: "destination",
    step: "throw old pages away",
    reason: `guest ${guest} runs`,
  });

/** Nobody can tell what has come: whoever asked for everything again would have to know what the guest has written since. */
const missingUnknown = (guest: string): GodwitError =>
  new GodwitError({
    code: "internal",
    actor: "loader",
    side: "destination",
    step: "go on with a postcopy",
    reason: `which pages of guest ${guest} are missing was kept in a file that is gone`,
  });
