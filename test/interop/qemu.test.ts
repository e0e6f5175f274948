import { copyFileSync, existsSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import { checkBootGuest, qemuIsInstalled } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { awaitLife, MEMORY_BYTES, moveRam, readRam, scratch, startPair, startSide } from "./qemu-pair.ts";

const suite = qemuIsInstalled() ? describe : describe.skip;
const because = qemuIsInstalled() ? "" : " (skipped: no qemu-system-x86_64 in PATH)";

suite(`moving a QEMU guest${because}`, () => {
  it.live("goes on at the destination where it stopped, with no update lost", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const { source, destination } = yield* startPair(directory);
      assert.deepInclude(yield* source.guest.describe, { driver: "qemu", runState: "running" });
      assert.strictEqual((yield* destination.guest.describe).runState, "incoming");

      yield* source.guest.pause;
      const stopped = checkBootGuest(readRam(source), source.qemu.program);
      assert.strictEqual(stopped.faultCount, 0);
      assert.isAbove(stopped.round, 1);

      const path = join(directory, "state");
      const bytes = yield* source.guest.saveDeviceState(path);
      assert.strictEqual(statSync(path).size, bytes);
      assert.strictEqual(statSync(path).mode & 0o777, 0o600);
      // All of RAM would be more.
      assert.isBelow(bytes, 1024 * 1024);

      yield* moveRam(source, destination);
      yield* destination.guest.loadDeviceState(path);
      assert.strictEqual((yield* destination.guest.describe).runState, "paused");
      assert.deepStrictEqual(checkBootGuest(readRam(destination), destination.qemu.program), stopped);

      yield* destination.guest.resume;
      yield* awaitLife(destination, 3);
      yield* destination.guest.pause;
      const moved = checkBootGuest(readRam(destination), destination.qemu.program);
      assert.strictEqual(moved.faultCount, 0, JSON.stringify(moved.faults));
      assert.isAbove(moved.round, stopped.round);
      const letters = source.qemu.serial() + destination.qemu.serial();
      assert.isTrue("ABCDEFGHIJKLMNOPQRSTUVWXYZ".startsWith(letters.slice(0, 26)), letters);

      yield* source.guest.discard;
      assert.strictEqual((yield* Effect.flip(source.guest.describe)).code, "no-such-guest");
      yield* source.guest.discard;
    }),
  );

  it.live("would show a page that was not moved", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const { source, destination } = yield* startPair(directory);
      const early = readRam(source);
      yield* awaitLife(source);
      yield* source.guest.pause;
      yield* source.guest.saveDeviceState(join(directory, "state"));
      const page = 4096 * 1000;
      const ram = readRam(source);
      ram.set(early.subarray(page, page + 4096), page);
      writeFileSync(destination.qemu.ramPath, ram, { flag: "r+" });
      yield* destination.guest.loadDeviceState(join(directory, "state"));
      yield* destination.guest.resume;
      yield* awaitLife(destination);
      yield* destination.guest.pause;
      const ledger = checkBootGuest(readRam(destination), destination.qemu.program);
      assert.strictEqual(ledger.faultCount, 3);
      assert.strictEqual(ledger.faults[0]?.address, page);
    }),
  );

  it.live("comes back to the source after its device state was given away, and can be saved again", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const source = yield* startSide(directory);
      yield* source.qemu.awaitSerial((text) => text.includes("B"));
      for (const attempt of ["first", "second"]) {
        yield* source.guest.pause;
        yield* source.guest.pause;
        yield* source.guest.saveDeviceState(join(directory, attempt));
        yield* source.guest.resume;
        yield* source.guest.resume;
        yield* awaitLife(source);
      }
      yield* source.guest.pause;
      assert.strictEqual(checkBootGuest(readRam(source), source.qemu.program).faultCount, 0);
    }),
  );

  it.live("gives its device state away once: to have it again, it must go on first", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const source = yield* startSide(directory);
      yield* source.guest.pause;
      yield* source.guest.saveDeviceState(join(directory, "state"));
      assert.strictEqual((yield* source.guest.describe).runState, "paused");
      const error = yield* Effect.flip(source.guest.saveDeviceState(join(directory, "again")));
      assert.strictEqual(error.code, "wrong-state");
      assert.include(error.reason, "resume and pause it first");
    }),
  );

  it.live("takes its video memory along, which lies in no file", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const { source, destination } = yield* startPair(directory, { moreOptions: ["-device", "VGA"] });
      yield* source.guest.pause;
      yield* source.guest.saveDeviceState(join(directory, "state"));
      yield* moveRam(source, destination);
      yield* destination.guest.loadDeviceState(join(directory, "state"));
      yield* destination.guest.resume;
      yield* awaitLife(destination);
    }),
  );

  it.live("has RAM in a directory of unlinked files, reached through its process", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const source = yield* startSide(directory, {
        memoryOptions: [
          ...["-machine", "pc,memory-backend=ram0"],
          ...["-object", `memory-backend-file,id=ram0,size=${MEMORY_BYTES},mem-path=/dev/shm,share=on`],
        ],
      });
      yield* source.qemu.awaitSerial((text) => text.includes("B"));
      const { blocks } = yield* source.guest.describe;
      assert.match(blocks[0]!.path, /^\/proc\/\d+\/fd\/\d+$/);
      yield* source.guest.pause;
      assert.strictEqual(checkBootGuest(readFileSync(blocks[0]!.path), source.qemu.program).faultCount, 0);
    }),
  );

  it.live("has RAM in a file that was replaced by another one of its name", () =>
    Effect.gen(function* () {
      const source = yield* startSide(yield* scratch);
      yield* source.qemu.awaitSerial((text) => text.includes("B"));
      rmSync(source.qemu.ramPath);
      writeFileSync(source.qemu.ramPath, new Uint8Array(MEMORY_BYTES));
      const { blocks } = yield* source.guest.describe;
      assert.match(blocks[0]!.path, /^\/proc\/\d+\/fd\/\d+$/);
      yield* source.guest.pause;
      assert.isAbove(checkBootGuest(readFileSync(blocks[0]!.path), source.qemu.program).round, 0);
    }),
  );

  it.live("lets a dirty tracker see its writes, and only them", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const endAddress = 0x20_0000;
      const source = yield* startSide(directory, { program: { endAddress } });
      yield* source.qemu.awaitSerial((text) => text.includes("B"));
      const tracker = yield* source.guest.track("auto");
      assert.strictEqual((yield* tracker.sync(() => {})).dirtyPages, MEMORY_BYTES / 4096);
      yield* awaitLife(source);
      yield* source.guest.pause;
      const written = new Set<number>();
      yield* tracker.sync((_, first, pages) => {
        for (let page = first; page < first + pages; page++) written.add(page);
      });
      for (let page = 0x10_0000 / 4096; page < endAddress / 4096; page++)
        assert.isTrue(written.has(page), `page ${page}`);
      assert.isFalse([...written].some((page) => page >= endAddress / 4096));
      assert.strictEqual((yield* tracker.sync(() => {})).dirtyPages, 0);
    }),
  );
});

suite(`a QEMU guest that a move fails for${because}`, () => {
  it.live("is unharmed when the destination cannot load its device state; another destination can", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const { source, destination } = yield* startPair(directory);
      yield* source.guest.pause;
      const path = join(directory, "state");
      const whole = yield* source.guest.saveDeviceState(path);
      const cut = join(directory, "cut");
      copyFileSync(path, cut);
      // Behind the devices come 100 KiB that describe them, which QEMU does without.
      truncateSync(cut, whole - 103_000);
      yield* moveRam(source, destination);

      const error = yield* Effect.flip(destination.guest.loadDeviceState(cut));
      assert.strictEqual(error.code, "device-state-failed");
      assert.match(error.reason, /error while loading state for instance/);
      assert.strictEqual((yield* destination.guest.describe).runState, "failed");
      assert.strictEqual((yield* Effect.flip(destination.guest.resume)).code, "wrong-state");
      assert.strictEqual((yield* Effect.flip(destination.guest.loadDeviceState(path))).code, "wrong-state");
      yield* destination.guest.discard;
      assert.strictEqual((yield* Effect.flip(destination.guest.describe)).code, "no-such-guest");

      const next = yield* startSide(directory, { role: "destination" });
      yield* moveRam(source, next);
      yield* next.guest.loadDeviceState(path);
      yield* next.guest.loadDeviceState(path);
      yield* next.guest.discard;

      yield* source.guest.resume;
      yield* awaitLife(source);
      yield* source.guest.pause;
      assert.strictEqual(checkBootGuest(readRam(source), source.qemu.program).faultCount, 0);
    }),
  );

  it.live("leaves the destination ready for another try when it was fed nothing", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const { source, destination } = yield* startPair(directory);
      writeFileSync(join(directory, "nonsense"), "this is no device state");
      for (const name of ["nonsense", "absent"]) {
        const error = yield* Effect.flip(destination.guest.loadDeviceState(join(directory, name)));
        assert.strictEqual(error.code, "device-state-failed");
        assert.include(error.reason, name);
      }
      // `cont` would succeed here, and let it start by itself after the load.
      assert.strictEqual((yield* Effect.flip(destination.guest.resume)).code, "wrong-state");
      yield* destination.guest.pause;
      yield* destination.guest.discard;
      assert.strictEqual((yield* destination.guest.describe).runState, "incoming");

      yield* source.guest.pause;
      yield* source.guest.saveDeviceState(join(directory, "state"));
      yield* moveRam(source, destination);
      yield* destination.guest.loadDeviceState(join(directory, "state"));
      assert.strictEqual((yield* destination.guest.describe).runState, "paused");
    }),
  );

  it.live("goes on at the source when saving was interrupted", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const source = yield* startSide(directory, { moreOptions: ["-device", "VGA"] });
      yield* source.qemu.awaitSerial((text) => text.includes("B"));
      for (const ms of [1, 3, 5, 7, 9, 12]) {
        yield* source.guest.pause;
        const path = join(directory, `state-${ms}`);
        const done = yield* source.guest.saveDeviceState(path).pipe(Effect.timeoutOption(ms));
        assert.strictEqual(existsSync(path), done._tag === "Some");
        assert.isFalse(existsSync(`${path}.partial`));
        yield* source.guest.resume;
      }
      yield* awaitLife(source);
      yield* source.guest.pause;
      assert.isAbove(yield* source.guest.saveDeviceState(join(directory, "state")), 0);
    }),
  );

  it.live("is thrown away at the destination when loading was interrupted, unless that was before QEMU was asked", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const source = yield* startSide(directory);
      yield* source.qemu.awaitSerial((text) => text.includes("A"));
      yield* source.guest.pause;
      yield* source.guest.saveDeviceState(join(directory, "state"));
      const interruptedAfter = (ms: number) =>
        Effect.gen(function* () {
          const destination = yield* startSide(directory, { role: "destination" });
          yield* moveRam(source, destination);
          yield* destination.guest.loadDeviceState(join(directory, "state")).pipe(Effect.timeoutOption(ms));
          yield* destination.guest.discard;
          const left = yield* Effect.result(destination.guest.describe);
          return left._tag === "Success" ? left.success.runState : left.failure.code;
        }).pipe(Effect.scoped);
      for (const ms of [1, 4, 7, 10, 13]) assert.include(["incoming", "no-such-guest"], yield* interruptedAfter(ms));
    }),
  );

  it.live("is saved neither while it runs nor over a file that is there", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const source = yield* startSide(directory);
      const path = join(directory, "state");
      assert.strictEqual((yield* Effect.flip(source.guest.saveDeviceState(path))).code, "wrong-state");
      yield* source.guest.pause;
      writeFileSync(path, "mine");
      assert.strictEqual((yield* Effect.flip(source.guest.saveDeviceState(path))).code, "device-state-failed");
      assert.strictEqual(readFileSync(path, "utf8"), "mine");
      assert.isAbove(yield* source.guest.saveDeviceState(join(directory, "other")), 0);
    }),
  );

  it.live("is not thrown away while it runs", () =>
    Effect.gen(function* () {
      const source = yield* startSide(yield* scratch);
      assert.strictEqual((yield* Effect.flip(source.guest.discard)).code, "wrong-state");
      yield* awaitLife(source);
    }),
  );

  it.live("is told apart from a destination of another machine type", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const source = yield* startSide(directory);
      const other = yield* startSide(directory, {
        role: "destination",
        memoryOptions: [
          ...["-machine", "q35,memory-backend=ram0"],
          ...["-object", `memory-backend-file,id=ram0,size=${MEMORY_BYTES},mem-path=/dev/shm,share=on`],
        ],
      });
      const machines = [(yield* source.guest.describe).machine, (yield* other.guest.describe).machine];
      assert.match(machines[0]!, /^pc-i440fx-[\d.]+$/);
      assert.match(machines[1]!, /^pc-q35-[\d.]+$/);
    }),
  );
});
