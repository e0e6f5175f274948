/** The driver of a QEMU that begins to run before all of its memory is there, without any actor: its pages come from a file beside it. */
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import { checkBootGuest, type Guest, type MissingMemory, QemuDriver, qemuIsInstalled } from "@godwit/guest";
import { nextData, nextHole, punchHole } from "@godwit/host";
import { Bitmap, PAGE_BYTES } from "@godwit/memory";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { HUGE_BYTES, hugePagesObstacle, mountHugePages, reserveHugePages } from "../huge-pages.ts";
import { awaitLife, MEMORY_BYTES, moveRam, readRam, type Side, scratch, startPair } from "./qemu-pair.ts";

const suite = qemuIsInstalled() ? describe : describe.skip;
const because = qemuIsInstalled() ? "" : " (skipped: no qemu-system-x86_64 in PATH)";

const PAGES = MEMORY_BYTES / PAGE_BYTES;
/** Above the firmware's own memory and the guest's program. */
const FIRST_COUNTED = 0x10_0000 / PAGE_BYTES;

/** The guest's memory at the destination from `first` on is thrown away. */
const punch = (side: Side, first: number): void => {
  const fd = openSync(side.qemu.ramPath, "r+");
  try {
    punchHole(fd, first * PAGE_BYTES, (PAGES - first) * PAGE_BYTES);
  } finally {
    closeSync(fd);
  }
};

const holesOf = (side: Side): ReadonlyArray<number> => {
  const fd = openSync(side.qemu.ramPath, "r");
  try {
    const there = new Set<number>();
    for (let at = nextData(fd, 0); at !== null; ) {
      const hole = nextHole(fd, at);
      for (let page = at / PAGE_BYTES; page < hole / PAGE_BYTES; page++) there.add(page);
      at = nextData(fd, hole);
    }
    return Array.from({ length: PAGES }, (_, page) => page).filter((page) => !there.has(page));
  } finally {
    closeSync(fd);
  }
};

/** A source that has handed over its device state, and a destination that was prepared and has its memory. The destination's stream lies with `life`. */
const handedOverFor = Effect.fnUntraced(function* (life: Scope.Scope, moreOptions: ReadonlyArray<string> = []) {
  const directory = yield* scratch;
  const { source, destination } = yield* startPair(directory, { moreOptions });
  yield* destination.guest.prepareForPostcopy.pipe(Effect.provideService(Scope.Scope, life));
  yield* source.guest.pause;
  yield* source.guest.saveDeviceState(join(directory, "state"));
  yield* moveRam(source, destination);
  return { source, destination, state: join(directory, "state"), ram: readRam(source) };
});
const handedOver = Effect.flatMap(Effect.scope, (scope) => handedOverFor(scope));

/** Puts each page that is touched in place, until `end`. */
const serve = (memory: MissingMemory, ram: Uint8Array, touched: Set<number>) =>
  Effect.forkScoped(
    memory.touches(({ block, page }) => {
      touched.add(page);
      memory.copy(block, page, ram.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
    }),
  );

const bringRest = (memory: MissingMemory, ram: Uint8Array, pages: ReadonlyArray<number>): void => {
  for (const page of pages) memory.copy(0, page, ram.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
};

const blocksOf = (guest: Guest) => Effect.map(guest.describe, ({ blocks }) => blocks);

const expectWhole = (side: Side, roundBefore: number) =>
  Effect.gen(function* () {
    assert.isUndefined((yield* side.guest.describe).pagesMissing);
    yield* awaitLife(side);
    yield* side.guest.pause;
    const ledger = checkBootGuest(readRam(side), side.qemu.program);
    assert.strictEqual(ledger.faultCount, 0, JSON.stringify(ledger.faults));
    assert.isAbove(ledger.round, roundBefore);
    // It can be moved on.
    assert.isAbove(yield* side.guest.saveDeviceState(join(yield* scratch, "state")), 0);
  });

suite(`a QEMU destination that was prepared for a postcopy${because}`, () => {
  it.live("runs without its pages, waits for those it touches, and has all of them in the end", () =>
    Effect.gen(function* () {
      const { source, destination, state, ram } = yield* handedOver;
      const { round } = checkBootGuest(ram, source.qemu.program);
      punch(destination, FIRST_COUNTED);
      const { guest } = destination;
      const memory = yield* guest.expectPages(yield* blocksOf(destination.guest));
      yield* guest.loadDeviceState(state);
      assert.deepInclude(yield* guest.describe, { runState: "paused", pagesMissing: true });
      assert.strictEqual(yield* memory.vcpus, 1);
      const touched = new Set<number>();
      yield* serve(memory, ram, touched);
      yield* guest.resume;
      assert.deepInclude(yield* guest.describe, { runState: "running", pagesMissing: true });
      while (touched.size <= 100) yield* Effect.sleep("5 millis");
      bringRest(
        memory,
        ram,
        Array.from({ length: PAGES - FIRST_COUNTED }, (_, n) => FIRST_COUNTED + n),
      );
      yield* memory.end;
      // QEMU's own word, for its only vCPU.
      const blocktime = memory.blocktime?.() ?? null;
      assert.deepStrictEqual(blocktime?.vcpusMs, [blocktime?.allMs ?? 0]);
      assert.isAbove(blocktime?.allMs ?? 0, 0);
      assert.strictEqual((yield* guest.describe).runState, "running");
      yield* expectWhole(destination, round);
    }),
  );

  it.live("is loaded as ever when all of its pages came before", () =>
    Effect.gen(function* () {
      const { source, destination, state, ram } = yield* handedOver;
      yield* destination.guest.loadDeviceState(state);
      assert.deepStrictEqual(Buffer.compare(readRam(destination), ram), 0);
      assert.strictEqual((yield* destination.guest.describe).runState, "paused");
      yield* destination.guest.resume;
      yield* expectWhole(destination, checkBootGuest(ram, source.qemu.program).round);
    }),
  );

  it.live("loads devices that read memory which is missing, and has its video memory, which lies in no file", () =>
    Effect.gen(function* () {
      const { source, destination, state, ram } = yield* handedOverFor(yield* Effect.scope, ["-device", "VGA"]);
      const before = checkBootGuest(ram, source.qemu.program).round;
      punch(destination, 0);
      const memory = yield* destination.guest.expectPages(yield* blocksOf(destination.guest));
      const touched = new Set<number>();
      yield* serve(memory, ram, touched);
      yield* destination.guest.loadDeviceState(state);
      // Option ROMs, where KVM's interrupt controller patches guests.
      assert.isAbove([...touched].filter((page) => page >= 0xc0 && page < 0x100).length, 0);
      yield* destination.guest.resume;
      bringRest(
        memory,
        ram,
        Array.from({ length: PAGES }, (_, page) => page),
      );
      yield* memory.end;
      yield* expectWhole(destination, before);
    }),
  );

  it.live("waits for whoever goes on when the one who brought its pages is gone", () =>
    Effect.gen(function* () {
      let scope = yield* Scope.make();
      const { source, destination, state, ram } = yield* handedOverFor(scope);
      const { round } = checkBootGuest(ram, source.qemu.program);
      punch(destination, FIRST_COUNTED);
      const blocks = yield* blocksOf(destination.guest);
      for (let life = 0; life < 3; life++) {
        yield* Effect.gen(function* () {
          const guest = life === 0 ? destination.guest : yield* QemuDriver.open(destination.qemu.spec);
          const memory = yield* guest.expectPages(blocks);
          assert.strictEqual(memory.notPlaced === undefined, life === 0);
          // Whoever goes on may not know of the last pages that they came.
          if (life > 0) bringRest(memory, ram, [FIRST_COUNTED, FIRST_COUNTED + 1, PAGES - 1]);
          if (life === 0) yield* guest.loadDeviceState(state);
          yield* serve(memory, ram, new Set());
          if (life === 0) yield* guest.resume;
          yield* Effect.sleep("50 millis");
          if (life < 2) bringRest(memory, ram, holesOf(destination).slice(-1000));
        }).pipe(Effect.provideService(Scope.Scope, scope));
        yield* Scope.close(scope, Exit.void);
        scope = yield* Scope.make();
      }
      const memory = yield* (yield* QemuDriver.open(destination.qemu.spec)).expectPages(blocks);
      bringRest(memory, ram, holesOf(destination));
      yield* memory.end;
      yield* expectWhole(destination, round);
      assert.include(readFileSync(`${destination.qemu.spec.qmp}.log`, "utf8"), "Migration paused");
    }),
  );

  it.live("is ended when its pages will never come, and says why", () =>
    Effect.gen(function* () {
      const { destination, state } = yield* handedOver;
      punch(destination, FIRST_COUNTED);
      const { guest } = destination;
      const memory = yield* guest.expectPages(yield* blocksOf(destination.guest));
      yield* guest.loadDeviceState(state);
      yield* guest.resume;
      yield* Effect.sleep("50 millis");
      yield* memory.giveUp("the source is gone");
      assert.deepStrictEqual(yield* guest.ending, { how: "crashed", reason: "the source is gone" });
      assert.strictEqual((yield* Effect.flip(guest.describe)).code, "no-such-guest");
    }),
  );

  it.live("is of no use to another attempt: it ends", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const { destination } = yield* startPair(directory);
      yield* destination.guest.prepareForPostcopy;
      assert.strictEqual((yield* destination.guest.describe).runState, "failed");
      assert.strictEqual((yield* Effect.flip(destination.guest.prepareForPostcopy)).code, "wrong-state");
      yield* destination.guest.discard;
      assert.strictEqual((yield* Effect.flip(destination.guest.describe)).code, "no-such-guest");
    }),
  );
});

const HOST_PAGES = HUGE_BYTES / PAGE_BYTES;
/** The guest at both sides. */
const HUGE_PAGES_NEEDED = (2 * MEMORY_BYTES) / HUGE_BYTES;
const obstacle = qemuIsInstalled() ? hugePagesObstacle(HUGE_PAGES_NEEDED) : "no qemu-system-x86_64 in PATH";
const becauseHuge = obstacle === null ? "" : ` (skipped: ${obstacle})`;

describe.skipIf(obstacle !== null)(`a QEMU destination with memory in huge pages${becauseHuge}`, () => {
  const hugePages = Effect.gen(function* () {
    const held = (take: () => () => void) =>
      Effect.acquireRelease(Effect.sync(take), (giveBack) => Effect.sync(giveBack));
    const directory = yield* scratch;
    yield* held(() => reserveHugePages(HUGE_PAGES_NEEDED));
    yield* held(() => mountHugePages(join(directory, "huge")));
    return directory;
  });
  /** Whole host pages, as whoever fetches them places them. */
  const bring = (memory: MissingMemory, ram: Uint8Array, page: number): void => {
    const first = page - (page % HOST_PAGES);
    memory.copy(0, first, ram.subarray(first * PAGE_BYTES, (first + HOST_PAGES) * PAGE_BYTES));
  };

  it.live("begins without any, is fed with whole ones, and tells the next who feeds it which it has", () =>
    Effect.gen(function* () {
      const directory = yield* hugePages;
      const { source, destination } = yield* startPair(directory, { ramDirectory: join(directory, "huge") });
      const life = yield* Scope.make();
      yield* destination.guest.prepareForPostcopy.pipe(Effect.provideService(Scope.Scope, life));
      yield* source.guest.pause;
      yield* source.guest.saveDeviceState(join(directory, "state"));
      const ram = readRam(source);
      const { round } = checkBootGuest(ram, source.qemu.program);
      const blocks = yield* blocksOf(destination.guest);
      assert.deepInclude(blocks[0], { hostPageBytes: HUGE_BYTES });
      const placed = new Set<number>();
      yield* Effect.gen(function* () {
        const memory = yield* destination.guest.expectPages(blocks);
        yield* Effect.forkScoped(
          memory.touches(({ page }) => {
            assert.strictEqual(page % HOST_PAGES, 0);
            // The upper half is left to the next life.
            if (page >= PAGES / 2 && placed.size >= 4) return;
            placed.add(page);
            bring(memory, ram, page);
          }),
        );
        yield* destination.guest.loadDeviceState(join(directory, "state"));
        yield* destination.guest.resume;
        while (placed.size < 4) yield* Effect.sleep("5 millis");
        // What is still on its way when the connection ends may or may not arrive.
        yield* memory.placed(0);
      }).pipe(Effect.provideService(Scope.Scope, life));
      yield* Scope.close(life, Exit.void);
      const guest = yield* QemuDriver.open(destination.qemu.spec);
      const memory = yield* guest.expectPages(blocks);
      const [lacking] = memory.notPlaced ?? [];
      assert.isDefined(lacking);
      yield* Effect.forkScoped(memory.touches(({ page }) => bring(memory, ram, page)));
      for (let page = 0; page < PAGES; page += HOST_PAGES) {
        assert.strictEqual(Bitmap.test(lacking!, page), !placed.has(page));
        bring(memory, ram, page);
      }
      yield* memory.end;
      const { vcpusMs } = memory.blocktime?.() ?? { vcpusMs: [] };
      assert.lengthOf(vcpusMs, 1);
      assert.isAbove(vcpusMs[0]!, 0);
      yield* expectWhole({ ...destination, guest }, round);
    }),
  );
});

suite(`a QEMU destination that was not prepared for a postcopy${because}`, () => {
  it.live("does not wait for pages", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const { destination } = yield* startPair(directory);
      const blocks = yield* blocksOf(destination.guest);
      assert.strictEqual((yield* Effect.flip(destination.guest.expectPages(blocks))).code, "not-supported");
    }),
  );
});
