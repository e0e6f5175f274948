import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import { awaitVerified, BuiltinDriver, checkMemory, readStats, readVerification } from "./driver.ts";
import { startBuiltin, startBuiltinIncoming } from "./launch.ts";

const MEMORY_BYTES = 16 * 2 ** 20;
const PAGES = MEMORY_BYTES / 4096;
const WORKLOAD = { workingSetBytes: 2 ** 20, dirtyRateBytesPerSecond: 50 * 2 ** 20, seed: 9 };

/** Copies over a file that stays mapped by a guest: cutting it first would end the guest. */
const overwrite = (path: string, content: Buffer, at = 0): void => {
  const fd = openSync(path, "r+");
  writeSync(fd, content, 0, content.length, at);
  closeSync(fd);
};

/** A source, stopped and saved, and a destination that waits for it. */
const stopMigrationOf = Effect.fnUntraced(function* (workload: typeof WORKLOAD) {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync("/dev/shm/godwit-test-")),
    (path) => Effect.sync(() => rmSync(path, { recursive: true })),
  );
  const at = (name: string) => join(directory, name);
  const sourceSpec = yield* Effect.acquireRelease(
    startBuiltin({ name: "vm1", memoryBytes: MEMORY_BYTES, directory: at("a"), ...workload }),
    (spec) => Effect.flatMap(BuiltinDriver.open(spec), (guest) => guest.discard).pipe(Effect.orDie),
  );
  const source = yield* BuiltinDriver.open(sourceSpec);
  yield* source.pause;
  const early = readFileSync(at("a/vm1.ram0"));
  yield* source.resume;
  // Long enough to write the working set a few times over.
  yield* Effect.sleep("150 millis");
  yield* source.pause;
  yield* source.saveDeviceState(at("state"));
  const { blocks } = yield* source.describe;
  const spec = yield* Effect.acquireRelease(startBuiltinIncoming("vm1", blocks, at("b")), (spec) =>
    Effect.flatMap(BuiltinDriver.open(spec), (guest) => guest.discard).pipe(Effect.orDie),
  );
  return {
    source,
    sourceSpec,
    destination: yield* BuiltinDriver.open(spec),
    spec,
    statePath: at("state"),
    sourceRam: at("a/vm1.ram0"),
    ram: at("b/vm1.ram0"),
    early,
    memory: readFileSync(at("a/vm1.ram0")),
  };
});

const stoppedMigration = stopMigrationOf(WORKLOAD);

const pageOf = (memory: Buffer, page: number): Buffer => memory.subarray(page * 4096, (page + 1) * 4096);
const ZEROS = Buffer.alloc(4096);

/** Pages that hold data in both, and other data in each: what each kind of damage can be made of. */
const changedPages = (before: Buffer, after: Buffer): Array<number> =>
  Array.from({ length: PAGES }, (_, page) => page).filter((page) => {
    const [one, other] = [pageOf(before, page), pageOf(after, page)];
    return !one.equals(other) && !one.equals(ZEROS) && !other.equals(ZEROS);
  });

describe("a builtin guest that was moved", () => {
  it.live("checks every page while it runs, and finds memory that was copied right to be right", () =>
    Effect.gen(function* () {
      const { destination, spec, statePath, ram, memory } = yield* stoppedMigration;
      assert.strictEqual((yield* destination.describe).runState, "incoming");
      overwrite(ram, memory);
      yield* destination.loadDeviceState(statePath);
      assert.strictEqual((yield* destination.describe).runState, "paused");
      // Asked for before it runs: the answer comes with the end of the sweep.
      const waiting = yield* Effect.forkChild(awaitVerified(spec), { startImmediately: true });
      yield* destination.resume;
      const report = yield* Fiber.join(waiting);
      assert.deepStrictEqual(report, { done: true, pagesChecked: PAGES, pagesTotal: PAGES, badCount: 0, bad: [] });
      const { workload, runState } = yield* readStats(spec);
      assert.strictEqual(runState, "running");
      assert.deepInclude(workload, WORKLOAD);
    }),
  );

  it.live("goes on with the work of the source: pages it writes then are right as well", () =>
    Effect.gen(function* () {
      const { destination, spec, statePath, ram, memory } = yield* stoppedMigration;
      overwrite(ram, memory);
      yield* destination.loadDeviceState(statePath);
      yield* destination.resume;
      yield* awaitVerified(spec);
      while (readFileSync(ram).equals(memory)) yield* Effect.sleep("5 millis");
      yield* destination.pause;
      assert.deepInclude(yield* checkMemory(spec), { pagesChecked: PAGES, badCount: 0 });
    }),
  );

  it.live("finds each kind of damage, in pages it writes at once and in pages it never writes", () =>
    Effect.gen(function* () {
      const { destination, spec, statePath, ram, early, memory } = yield* stoppedMigration;
      const [stale, torn, lost, flipped] = changedPages(early, memory);
      const cold = Array.from({ length: PAGES }, (_, page) => page).findLast(
        (page) => !pageOf(memory, page).equals(ZEROS),
      );
      overwrite(ram, memory);
      overwrite(ram, pageOf(early, stale!), stale! * 4096);
      overwrite(ram, pageOf(early, torn!).subarray(2048), torn! * 4096 + 2048);
      overwrite(ram, ZEROS, lost! * 4096);
      const wrong = Buffer.from(pageOf(memory, flipped!));
      wrong[4095]! ^= 1;
      overwrite(ram, wrong, flipped! * 4096);
      overwrite(ram, ZEROS, cold! * 4096);
      yield* destination.loadDeviceState(statePath);
      yield* destination.resume;
      const report = yield* awaitVerified(spec);
      assert.strictEqual(report.pagesChecked, PAGES);
      assert.strictEqual(report.badCount, 5);
      assert.sameDeepMembers(
        report.bad.map(({ page, found }) => ({ page, found })),
        [
          { page: stale, found: "stale" },
          { page: torn, found: "torn" },
          { page: lost, found: "lost" },
          { page: flipped, found: "foreign" },
          { page: cold, found: "lost" },
        ],
      );
      assert.isTrue(report.bad.every(({ expectedVersion }) => expectedVersion >= 1));
    }),
  );

  it.live("counts all bad pages and names sixteen of them", () =>
    Effect.gen(function* () {
      // As fast as it can: most of the working set is written before the sweep would come by.
      const hasty = { ...WORKLOAD, dirtyRateBytesPerSecond: 2 ** 36 };
      const { destination, spec, statePath, memory } = yield* stopMigrationOf(hasty);
      yield* destination.loadDeviceState(statePath);
      yield* destination.resume;
      // Nothing was copied: every page that is not of zeros is lost, and each is found before it is written over.
      const report = yield* awaitVerified(spec);
      const dataPages = Array.from({ length: PAGES }, (_, page) => page).filter(
        (page) => !pageOf(memory, page).equals(ZEROS),
      );
      assert.strictEqual(report.badCount, dataPages.length);
      assert.strictEqual(report.bad.length, 16);
      assert.isTrue(report.bad.every(({ found }) => found === "lost"));
    }),
  );

  it.live("can be loaded once more before it runs, and not afterwards", () =>
    Effect.gen(function* () {
      const { destination, spec, statePath, ram, memory } = yield* stoppedMigration;
      yield* destination.loadDeviceState(statePath);
      assert.isAbove((yield* checkMemory(spec)).badCount, 0);
      overwrite(ram, memory);
      yield* destination.loadDeviceState(statePath);
      yield* destination.resume;
      assert.strictEqual((yield* awaitVerified(spec)).badCount, 0);
      assert.strictEqual((yield* Effect.flip(destination.loadDeviceState(statePath))).code, "wrong-state");
    }),
  );

  it.live("is refused wrong device state with the reason, and stays incoming", () =>
    Effect.gen(function* () {
      const { destination, spec, statePath } = yield* stoppedMigration;
      const damaged = readFileSync(statePath);
      damaged[40]! ^= 1;
      writeFileSync(`${statePath}.damaged`, damaged);
      const error = yield* Effect.flip(destination.loadDeviceState(`${statePath}.damaged`));
      assert.strictEqual(error.code, "device-state-failed");
      assert.match(error.reason, /crc32/);
      assert.strictEqual((yield* Effect.flip(destination.loadDeviceState(`${statePath}.none`))).code, "guest-failed");
      assert.strictEqual((yield* Effect.flip(destination.resume)).code, "wrong-state");
      assert.strictEqual((yield* Effect.flip(awaitVerified(spec))).code, "wrong-state");
      // No vCPU runs, which is all that a pause promises.
      yield* destination.pause;
      assert.strictEqual((yield* destination.describe).runState, "incoming");
    }),
  );

  it.live("breaks the wait for its verification off when it ends, instead of calling it done", () =>
    Effect.gen(function* () {
      const { destination, spec, statePath } = yield* stoppedMigration;
      yield* destination.loadDeviceState(statePath);
      const waiting = yield* Effect.forkChild(Effect.flip(awaitVerified(spec)), { startImmediately: true });
      yield* destination.discard;
      assert.strictEqual((yield* Fiber.join(waiting)).code, "guest-failed");
    }),
  );

  it.live("tells how far its sweep is", () =>
    Effect.gen(function* () {
      const { destination, spec, statePath, ram, memory } = yield* stoppedMigration;
      overwrite(ram, memory);
      yield* destination.loadDeviceState(statePath);
      const before = yield* readVerification(spec);
      assert.deepStrictEqual(before, { done: false, pagesChecked: 0, pagesTotal: PAGES, badCount: 0, bad: [] });
      yield* destination.resume;
      yield* awaitVerified(spec);
      assert.isTrue((yield* readVerification(spec)).done);
    }),
  );
});

describe("a paused builtin guest", () => {
  it.live("finds a page that somebody else has changed, and the source goes on after a failed attempt", () =>
    Effect.gen(function* () {
      const { source, sourceSpec, sourceRam, memory } = yield* stoppedMigration;
      overwrite(sourceRam, Buffer.from([memory[4096 * 7]! ^ 0xff]), 4096 * 7);
      const report = yield* checkMemory(sourceSpec);
      assert.strictEqual(report.badCount, 1);
      assert.deepInclude(report.bad[0], { page: 7, found: "foreign" });
      overwrite(sourceRam, memory.subarray(4096 * 7, 4096 * 7 + 1), 4096 * 7);
      assert.strictEqual((yield* checkMemory(sourceSpec)).badCount, 0);
      yield* source.resume;
      assert.strictEqual((yield* source.describe).runState, "running");
    }),
  );

  it.live("never saves over a file that is there", () =>
    Effect.gen(function* () {
      const { source, statePath } = yield* stoppedMigration;
      const saved = readFileSync(statePath);
      const error = yield* Effect.flip(source.saveDeviceState(statePath));
      assert.match(error.reason, /EEXIST/);
      assert.isTrue(readFileSync(statePath).equals(saved));
    }),
  );
});

describe("the dirty tracker of a builtin guest", () => {
  for (const kind of ["auto", "content"] as const) {
    it.live(`finds exactly what the guest wrote between two syncs (${kind})`, () =>
      Effect.gen(function* () {
        const { source, sourceRam } = yield* stoppedMigration;
        const tracker = yield* source.track(kind);
        assert.strictEqual((yield* tracker.sync(() => undefined)).dirtyPages, PAGES);
        const before = readFileSync(sourceRam);
        yield* source.resume;
        yield* Effect.sleep("20 millis");
        yield* source.pause;
        const after = readFileSync(sourceRam);
        const found = new Set<number>();
        yield* tracker.sync((block, first, pages) => {
          assert.strictEqual(block, 0);
          for (let page = first; page < first + pages; page++) found.add(page);
        });
        const changed = Array.from({ length: PAGES }, (_, page) => page).filter(
          (page) => !pageOf(before, page).equals(pageOf(after, page)),
        );
        assert.isAbove(changed.length, 0);
        assert.isTrue(changed.every((page) => found.has(page)));
        // Writes that changed nothing (zeros over zeros) may be found as well, and nothing beyond the working set.
        assert.isAtMost(found.size, WORKLOAD.workingSetBytes / 4096);
        assert.strictEqual((yield* tracker.sync(() => undefined)).dirtyPages, 0);
      }),
    );
  }
});
