import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import { BuiltinDriver, checkMemory, readStats, resetBuiltin, shutDownBuiltin } from "./driver.ts";
import { type BuiltinOptions, type BuiltinSpec, startBuiltin, startBuiltinIncoming } from "./launch.ts";

const MEMORY_BYTES = 16 * 2 ** 20;

/** A directory in memory, gone with the scope. */
const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync("/dev/shm/godwit-test-")),
  (path) => Effect.sync(() => rmSync(path, { recursive: true })),
);

/** A guest that is discarded with the scope. */
const startGuest = Effect.fnUntraced(function* (options: Partial<BuiltinOptions> & { readonly directory: string }) {
  const spec = yield* Effect.acquireRelease(
    startBuiltin({ name: "vm1", memoryBytes: MEMORY_BYTES, workingSetBytes: 4 * 2 ** 20, ...options }),
    (spec) => Effect.flatMap(BuiltinDriver.open(spec), (guest) => guest.discard).pipe(Effect.orDie),
  );
  return { spec, guest: yield* BuiltinDriver.open(spec), ramPath: join(options.directory, `${spec.name}.ram0`) };
});

const digest = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

/** Kills a guest as the system's out-of-memory killer would, and waits until its connections have broken. */
const kill = (spec: BuiltinSpec): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const socket = connect(spec.socket, () => process.kill(spec.pid, "SIGKILL"));
    socket.resume();
    // ECONNRESET is one way to hear of it; "close" follows.
    socket.on("error", () => undefined);
    socket.on("close", () => resume(Effect.void));
  });
const codeOf = (error: unknown): string => (error instanceof GodwitError ? error.code : String(error));

describe("a builtin guest", () => {
  it.live("boots with its memory filled by the mix, and says what it is", () =>
    Effect.gen(function* () {
      const { guest, ramPath } = yield* startGuest({ directory: yield* directory, dirtyRateBytesPerSecond: 0 });
      const description = yield* guest.describe;
      assert.strictEqual(description.name, "vm1");
      assert.strictEqual(description.driver, "builtin");
      assert.strictEqual(description.machine, "builtin-1");
      assert.strictEqual(description.runState, "running");
      assert.deepStrictEqual(description.blocks, [
        { name: "ram0", lengthBytes: MEMORY_BYTES, hostPageBytes: 4096, path: ramPath, fileOffset: 0 },
      ]);
      const memory = readFileSync(ramPath);
      let zeroPages = 0;
      for (let at = 0; at < MEMORY_BYTES; at += 4096) {
        if (memory.subarray(at, at + 4096).every((byte) => byte === 0)) zeroPages++;
      }
      assert.closeTo(zeroPages / (MEMORY_BYTES / 4096), 0.4, 0.05);
    }),
  );

  it.live("fills the same memory for the same seed, and another for another", () =>
    Effect.gen(function* () {
      const idle = { directory: yield* directory, dirtyRateBytesPerSecond: 0 };
      const one = yield* startGuest({ ...idle, name: "one", seed: 5 });
      const same = yield* startGuest({ ...idle, name: "same", seed: 5, vcpus: 3 });
      const other = yield* startGuest({ ...idle, name: "other", seed: 6 });
      assert.strictEqual(digest(one.ramPath), digest(same.ramPath));
      assert.notStrictEqual(digest(one.ramPath), digest(other.ramPath));
    }),
  );

  it.live("writes at its rate, inside its working set only", () =>
    Effect.gen(function* () {
      const rate = 20 * 2 ** 20;
      const { guest, spec, ramPath } = yield* startGuest({
        directory: yield* directory,
        dirtyRateBytesPerSecond: rate,
      });
      yield* guest.pause;
      const before = readFileSync(ramPath);
      const first = yield* readStats(spec);
      yield* guest.resume;
      yield* Effect.sleep("500 millis");
      yield* guest.pause;
      const second = yield* readStats(spec);
      const measured = ((second.pagesWritten - first.pagesWritten) * 4096 * 1000) / (second.ranMs - first.ranMs);
      // Half of it must come even from a host as busy as a test machine; more than it must never come.
      assert.isAbove(measured, rate / 2);
      assert.isBelow(measured, rate * 1.2);
      const after = readFileSync(ramPath);
      // Each of the two vCPUs owns half of memory, and works on the first 2 MiB of it.
      const half = MEMORY_BYTES / 2;
      for (const start of [0, half]) {
        const [workEnd, end] = [start + 2 * 2 ** 20, start + half];
        assert.isFalse(before.subarray(start, workEnd).equals(after.subarray(start, workEnd)));
        assert.isTrue(before.subarray(workEnd, end).equals(after.subarray(workEnd, end)));
      }
    }),
  );

  it.live("writes nothing more once a pause has returned, and goes on where it was", () =>
    Effect.gen(function* () {
      const rate = 200 * 2 ** 20;
      const { guest, spec, ramPath } = yield* startGuest({
        directory: yield* directory,
        dirtyRateBytesPerSecond: rate,
      });
      for (let round = 0; round < 5; round++) {
        yield* guest.pause;
        const memory = digest(ramPath);
        const stats = yield* readStats(spec);
        assert.strictEqual(stats.runState, "paused");
        yield* Effect.sleep("30 millis");
        assert.strictEqual(digest(ramPath), memory);
        assert.strictEqual((yield* readStats(spec)).pagesWritten, stats.pagesWritten);
        // Every page is whole: none was left half written.
        assert.strictEqual((yield* checkMemory(spec)).badCount, 0);
        yield* guest.resume;
        while ((yield* readStats(spec)).pagesWritten === stats.pagesWritten) yield* Effect.sleep("5 millis");
      }
    }),
  );

  it.live("takes each order twice", () =>
    Effect.gen(function* () {
      const { guest } = yield* startGuest({ directory: yield* directory });
      yield* guest.pause;
      yield* guest.pause;
      assert.strictEqual((yield* guest.describe).runState, "paused");
      yield* guest.resume;
      yield* guest.resume;
      assert.strictEqual((yield* guest.describe).runState, "running");
      yield* guest.discard;
      yield* guest.discard;
    }),
  );

  it.live("refuses what does not fit its state, and stays as it was", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const { guest, spec } = yield* startGuest({ directory: dir });
      const state = join(dir, "state");
      assert.strictEqual(codeOf(yield* Effect.flip(guest.saveDeviceState(state))), "wrong-state");
      assert.strictEqual(codeOf(yield* Effect.flip(guest.loadDeviceState(state))), "wrong-state");
      assert.strictEqual(codeOf(yield* Effect.flip(checkMemory(spec))), "wrong-state");
      assert.strictEqual((yield* guest.describe).runState, "running");
      assert.isFalse(existsSync(state));
    }),
  );

  it.live("leaves nothing but its log when it is discarded", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const { guest } = yield* startGuest({ directory: dir });
      assert.sameMembers(readdirSync(dir), ["vm1.log", "vm1.ram0", "vm1.sock"]);
      yield* guest.discard;
      assert.deepStrictEqual(readdirSync(dir), ["vm1.log"]);
      assert.strictEqual(codeOf(yield* Effect.flip(guest.describe)), "guest-failed");
    }),
  );

  it.live("lives on when its starter ends", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const options = JSON.stringify({ name: "vm1", memoryBytes: MEMORY_BYTES, directory: dir });
      const launch = JSON.stringify(new URL("./launch.ts", import.meta.url).href);
      const starter = `
        import { startBuiltin } from ${launch};
        import * as Effect from "effect/Effect";
        process.stdout.write(JSON.stringify(await Effect.runPromise(startBuiltin(${options}))));
      `;
      const cwd = new URL(".", import.meta.url);
      const spec = JSON.parse(
        execFileSync(process.execPath, ["--input-type=module", "-e", starter], { cwd }).toString(),
      );
      const guest = yield* BuiltinDriver.open(spec);
      assert.strictEqual((yield* guest.describe).runState, "running");
      yield* guest.discard;
    }),
  );
});

describe("the life of a builtin guest", () => {
  it.live("begins anew with a reset: the memory of its boot, in the same file, and the vCPUs go on from there", () =>
    Effect.gen(function* () {
      const { guest, spec, ramPath } = yield* startGuest({ directory: yield* directory, dirtyRateBytesPerSecond: 0 });
      const booted = digest(ramPath);
      // 5 pages a ms: it takes 400 ms to write as many as before.
      const busy = yield* startGuest({ directory: yield* directory, dirtyRateBytesPerSecond: 20 * 2 ** 20 });
      const watching = yield* Effect.forkChild(busy.guest.ending, { startImmediately: true });
      while ((yield* readStats(busy.spec)).pagesWritten < 2000) yield* Effect.sleep("5 millis");
      yield* resetBuiltin(busy.spec);
      assert.strictEqual((yield* busy.guest.describe).runState, "running");
      yield* busy.guest.pause;
      // What it has written since is of the new life; all else is as at boot.
      assert.strictEqual((yield* checkMemory(busy.spec)).badCount, 0);
      assert.isBelow((yield* readStats(busy.spec)).pagesWritten, 2000);
      assert.isUndefined(watching.pollUnsafe());
      yield* resetBuiltin(spec);
      assert.strictEqual(digest(ramPath), booted);
      assert.strictEqual((yield* guest.describe).runState, "running");
    }),
  );

  it.live("is neither begun anew nor ended by itself while it is stopped", () =>
    Effect.gen(function* () {
      const { guest, spec } = yield* startGuest({ directory: yield* directory });
      yield* guest.pause;
      for (const act of [resetBuiltin, shutDownBuiltin])
        assert.strictEqual(codeOf(yield* Effect.flip(act(spec))), "wrong-state");
      assert.strictEqual((yield* guest.describe).runState, "paused");
    }),
  );

  it.live("ends with a shutdown, which its watch hears; the process and its files go with it", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const { guest, spec } = yield* startGuest({ directory: dir });
      const watching = yield* Effect.forkChild(guest.ending, { startImmediately: true });
      yield* guest.describe;
      yield* shutDownBuiltin(spec);
      assert.deepStrictEqual(yield* Fiber.join(watching), { how: "shutdown", reason: "the guest shut itself down" });
      yield* guest.discard;
      assert.deepStrictEqual(readdirSync(dir), ["vm1.log"]);
    }),
  );

  it.live("ends in good order when its process is told to, and without a word when it is killed", () =>
    Effect.gen(function* () {
      for (const [signal, how, reason] of [
        ["SIGTERM", "shutdown", /told to end, by SIGTERM/],
        ["SIGKILL", "crashed", /gone without a word/],
      ] as const) {
        const { guest, spec } = yield* startGuest({ directory: yield* directory });
        const watching = yield* Effect.forkChild(guest.ending, { startImmediately: true });
        yield* guest.describe;
        process.kill(spec.pid, signal);
        const ending = yield* Fiber.join(watching);
        assert.strictEqual(ending.how, how);
        assert.match(ending.reason, reason);
        // Who looks later learns that it is gone, but no more how.
        yield* guest.discard;
        assert.strictEqual((yield* guest.ending).how, "crashed");
      }
    }),
  );

  it.live("ends as a crash for who knows the process that another one has replaced", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const killed = yield* startGuest({ directory: dir });
      yield* kill(killed.spec);
      yield* startGuest({ directory: dir });
      const ending = yield* killed.guest.ending;
      assert.strictEqual(ending.how, "crashed");
      assert.include(ending.reason, `process ${killed.spec.pid} is gone`);
    }),
  );
});

describe("starting a builtin guest", () => {
  it.live("is refused while a guest of that name runs there, which is not disturbed", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const { guest } = yield* startGuest({ directory: dir });
      const again = startBuiltin({ name: "vm1", memoryBytes: MEMORY_BYTES, directory: dir });
      assert.strictEqual(codeOf(yield* Effect.flip(again)), "guest-exists");
      assert.strictEqual((yield* guest.describe).runState, "running");
    }),
  );

  it.live("replaces what a killed guest has left behind", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const killed = yield* startGuest({ directory: dir });
      yield* kill(killed.spec);
      const { guest } = yield* startGuest({ directory: dir });
      assert.strictEqual((yield* guest.describe).runState, "running");
      // The old spec names a process that is gone: it neither reaches the new guest nor ends it.
      assert.strictEqual(codeOf(yield* Effect.flip(killed.guest.pause)), "no-such-guest");
      yield* killed.guest.discard;
      assert.strictEqual((yield* guest.describe).runState, "running");
    }),
  );

  it.live("can be undone when the guest was killed: a discard removes its files", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const { guest, spec } = yield* startGuest({ directory: dir });
      yield* kill(spec);
      yield* guest.discard;
      assert.deepStrictEqual(readdirSync(dir), ["vm1.log"]);
    }),
  );

  it.live("is refused with the space there is when memory does not fit the file system", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const error = yield* Effect.flip(startBuiltin({ name: "vm1", memoryBytes: 2 ** 40, directory: dir }));
      assert.strictEqual(error.code, "no-space");
      assert.match(error.reason, /bytes free, the file needs 1099511627776/);
      assert.deepStrictEqual(readdirSync(dir), ["vm1.log"]);
    }),
  );

  it.live("is refused with the offending value before there is a process", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const start = (options: Partial<BuiltinOptions>) =>
        Effect.flip(startBuiltin({ name: "vm1", memoryBytes: MEMORY_BYTES, directory: dir, ...options }));
      for (const [options, reason] of [
        [{ memoryBytes: 5000 }, /5000/],
        [{ vcpus: 0 }, /vcpus is 0/],
        [{ name: "a/b" }, /a\/b/],
        [{ directory: "relative" }, /relative is not absolute/],
        [{ directory: `/dev/shm/${"x".repeat(120)}` }, /a unix socket may have/],
      ] as const) {
        const error = yield* start(options);
        assert.strictEqual(error.code, "invalid-parameter");
        assert.match(error.reason, reason);
      }
      assert.deepStrictEqual(readdirSync(dir), []);
      rmSync(`/dev/shm/${"x".repeat(120)}`, { recursive: true, force: true });
    }),
  );

  it.live("as a destination is refused for blocks that no builtin guest has", () =>
    Effect.gen(function* () {
      const dir = yield* directory;
      const block = { name: "ram0", lengthBytes: MEMORY_BYTES, hostPageBytes: 4096, path: "/x", fileOffset: 0 };
      // Large host pages are a hugetlbfs's, and there is none.
      const huge = [{ ...block, lengthBytes: 2 ** 22, hostPageBytes: 2 ** 21 }];
      assert.strictEqual(codeOf(yield* Effect.flip(startBuiltinIncoming("vm1", huge, dir))), "not-supported");
      for (const blocks of [[], [{ ...block, name: "pc.ram" }], [block, block]]) {
        assert.strictEqual(codeOf(yield* Effect.flip(startBuiltinIncoming("vm1", blocks, dir))), "incompatible");
      }
      assert.deepStrictEqual(readdirSync(dir), []);
    }),
  );
});
