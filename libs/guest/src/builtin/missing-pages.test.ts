import { closeSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import { borrowDescriptor, copyPages, makeFaultReader, probeMissingFaults, waitForFaults } from "@godwit/host";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import {
  awaitVerified,
  BuiltinDriver,
  endListening,
  giveUpPages,
  listenForPages,
  type MissingPages,
  readStats,
  readVerification,
} from "./driver.ts";
import { startBuiltin, startBuiltinIncoming } from "./launch.ts";

const ability = probeMissingFaults();
const skipped = ability._tag === "Missing";
const title = skipped
  ? `a guest whose pages come later (skipped: ${ability.reason})`
  : "a guest whose pages come later";

const PAGE = 4096;
const MEMORY_BYTES = 8 * 2 ** 20;

/** A guest that was stopped at its source, and one that listens for its pages and has its device state. */
const listening = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync("/dev/shm/godwit-test-")),
    (path) => Effect.sync(() => rmSync(path, { recursive: true })),
  );
  const discarded = (spec: Parameters<typeof BuiltinDriver.open>[0]) =>
    Effect.flatMap(BuiltinDriver.open(spec), (guest) => guest.discard).pipe(Effect.orDie);
  const options = { name: "vm1", memoryBytes: MEMORY_BYTES, dirtyRateBytesPerSecond: 4 * 2 ** 20 };
  const sourceSpec = yield* Effect.acquireRelease(startBuiltin({ ...options, directory: `${directory}/a` }), discarded);
  const source = yield* BuiltinDriver.open(sourceSpec);
  yield* source.pause;
  const state = join(directory, "state");
  yield* source.saveDeviceState(state);
  const { blocks } = yield* source.describe;
  const spec = yield* Effect.acquireRelease(startBuiltinIncoming("vm1", blocks, `${directory}/b`), discarded);
  const guest = yield* BuiltinDriver.open(spec);
  const missing = yield* listenForPages(spec);
  const fd = yield* Effect.acquireRelease(
    Effect.sync(() => borrowDescriptor(missing.pid, missing.fd)),
    (borrowed) => Effect.sync(() => closeSync(borrowed)),
  );
  yield* guest.loadDeviceState(state);
  return { spec, guest, missing, fd, memory: readFileSync(`${directory}/a/vm1.ram0`), state };
});

/** The first page that a vCPU waits for. */
const firstFault = ({ address }: MissingPages, fd: number): Effect.Effect<number> =>
  Effect.promise(async () => {
    const reader = makeFaultReader(fd);
    for (;;) {
      if (waitForFaults(fd, 5)) {
        const [fault] = reader.read();
        if (fault !== undefined) return Number(fault.address - address) / PAGE;
      }
      await new Promise(setImmediate);
    }
  });

describe.skipIf(skipped)(title, () => {
  it.live("runs at once, waits for what it touches, and finds all of it right in the end", () =>
    Effect.gen(function* () {
      const { spec, guest, missing, fd, memory } = yield* listening;
      yield* guest.resume;
      const page = yield* firstFault(missing, fd);
      // The threads wait; whoever asks the process is answered.
      const { runState, pagesMissing } = yield* guest.describe;
      assert.deepStrictEqual([runState, pagesMissing], ["running", true]);
      assert.isFalse((yield* readVerification(spec)).done);
      const { pagesWritten } = yield* readStats(spec);
      copyPages(fd, missing.address + BigInt(page * PAGE), memory.subarray(page * PAGE, (page + 1) * PAGE));
      yield* firstFault(missing, fd);
      assert.isAtLeast((yield* readStats(spec)).pagesWritten, pagesWritten);
      copyPages(fd, missing.address, memory);
      assert.deepInclude(yield* awaitVerified(spec), { pagesChecked: MEMORY_BYTES / PAGE, badCount: 0 });
      yield* endListening(spec);
      yield* endListening(spec);
      assert.isUndefined((yield* guest.describe).pagesMissing);
    }),
  );

  it.live("has zeros for what was never placed, once that is said to be all", () =>
    Effect.gen(function* () {
      const { spec, guest, missing, fd, memory } = yield* listening;
      yield* guest.resume;
      for (let at = 0; at < memory.length; at += PAGE) {
        const bytes = memory.subarray(at, at + PAGE);
        if (bytes.some((byte) => byte !== 0)) copyPages(fd, missing.address + BigInt(at), bytes);
      }
      yield* endListening(spec);
      assert.deepInclude(yield* awaitVerified(spec), { pagesChecked: MEMORY_BYTES / PAGE, badCount: 0 });
    }),
  );

  it.live("is not tracked and not saved before all of it is there, and is tracked as ever afterwards", () =>
    Effect.gen(function* () {
      const { spec, guest, missing, fd, memory, state } = yield* listening;
      assert.strictEqual((yield* Effect.flip(Effect.scoped(guest.track("auto")))).code, "migration-in-progress");
      assert.strictEqual((yield* Effect.flip(guest.saveDeviceState(`${state}.again`))).code, "wrong-state");
      assert.isFalse(existsSync(`${state}.again`));
      yield* guest.resume;
      copyPages(fd, missing.address, memory);
      yield* endListening(spec);
      const tracker = yield* guest.track("auto");
      const pages = { first: 0, later: 0 };
      yield* tracker.sync((_block, _page, count) => {
        pages.first += count;
      });
      yield* awaitVerified(spec);
      const { pagesWritten } = yield* readStats(spec);
      yield* readStats(spec).pipe(Effect.repeat({ until: (stats) => stats.pagesWritten > pagesWritten + 8 }));
      yield* tracker.sync((_block, _page, count) => {
        pages.later += count;
      });
      assert.strictEqual(pages.first, MEMORY_BYTES / PAGE);
      assert.isAbove(pages.later, 0);
      assert.isBelow(pages.later, pages.first);
    }),
  );

  it.live("has failed, with the reason, when what it waits for cannot be had; and it ends all the same", () =>
    Effect.gen(function* () {
      const { spec, guest, missing, fd } = yield* listening;
      yield* guest.resume;
      yield* firstFault(missing, fd);
      const ending = yield* Effect.forkChild(guest.ending, { startImmediately: true });
      yield* giveUpPages(spec, "page 7 of its checkpoint is damaged");
      yield* giveUpPages(spec, "once more");
      assert.deepStrictEqual(yield* Fiber.join(ending), {
        how: "crashed",
        reason: "page 7 of its checkpoint is damaged",
      });
      assert.strictEqual((yield* guest.describe).runState, "failed");
      yield* guest.discard;
      assert.isFalse(existsSync(missing.block.path));
    }),
  );

  it.live("listens before it runs, or not at all; and only while it listens its pages can be given up", () =>
    Effect.gen(function* () {
      const { spec, guest, missing, fd, memory } = yield* listening;
      assert.strictEqual((yield* listenForPages(spec)).fd, missing.fd);
      copyPages(fd, missing.address, memory);
      yield* endListening(spec);
      yield* guest.resume;
      assert.strictEqual((yield* Effect.flip(listenForPages(spec))).code, "wrong-state");
      assert.strictEqual((yield* Effect.flip(giveUpPages(spec, "why"))).code, "wrong-state");
    }),
  );
});
