import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import type { OwnershipRegister, Settings } from "@godwit/actor";
import { builtinTail, openWriter, RAM_SECTION_ID, readCheckpoint } from "@godwit/checkpoint";
import {
  type Guest,
  type GuestSpec,
  lookAt,
  type MissingMemory,
  openGuest,
  openRegistry,
  startBuiltinIncoming,
  type Touch,
} from "@godwit/guest";
import { createRamFile } from "@godwit/host";
import { Bitmap, PAGE_BYTES, type RamBlock } from "@godwit/memory";
import { GodwitError, type OwnershipRecord, type Parameters, type RestoreRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import { memoryOf } from "./guest-memory.ts";
import { goOnRestoring, lazyRestore } from "./lazy-restore.ts";
import { leftPagings, notePaging } from "./paging-file.ts";
import type { Progress } from "./restoring.ts";

const PAGES = 200;
/** The others are zero. */
const STORED = Array.from({ length: 150 }, (_, page) => page);
const contentOf = (page: number): Uint8Array => new Uint8Array(PAGE_BYTES).fill(1 + (page % 255));

const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "godwit-lazy-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true })),
);

const saveExample = (path: string) =>
  Effect.promise(async () => {
    const lengthBytes = PAGES * PAGE_BYTES;
    const present = Bitmap.make(PAGES);
    Bitmap.setRange(present, 0, STORED.length);
    const block = { name: "ram0", lengthBytes };
    const writer = openWriter({ path, id: "1", machine: "m", start: 0, blocks: [block], ramSection: RAM_SECTION_ID });
    const fd = openSync(writer.partialPath, "r+");
    for (const page of STORED)
      writeSync(fd, contentOf(page), 0, PAGE_BYTES, writer.layout.blocks[0]!.pagesOffset + page * PAGE_BYTES);
    closeSync(fd);
    await writer.finish({
      ramSection: RAM_SECTION_ID,
      blocks: [{ ...block, present }],
      tail: builtinTail(new Uint8Array(3)),
    });
  });

const ASKED = {
  id: "0123456789abcdef",
  guest: "vm1",
  uri: "file:vm1",
  parameters: {},
  capabilities: {},
  stop: false,
  takeOver: false,
  lazy: true,
} as RestoreRequest;

const makeProgress = (): Progress => ({
  startedAt: 0,
  total: 0,
  remaining: 0,
  transferred: 0,
  checksums: "none",
  isBound: false,
  details: {},
});

/** A guest in name only: its memory is a file in which pages are put. */
const makeWorld = (of: Partial<RamBlock> = {}, guestOf: Partial<Guest> = {}) =>
  Effect.gen(function* () {
    const directory = yield* scratch;
    const path = join(directory, "vm1.checkpoint");
    yield* saveExample(path);
    const ramPath = join(directory, "ram");
    const ram = createRamFile(ramPath, PAGES * PAGE_BYTES);
    yield* Effect.addFinalizer(() => Effect.sync(() => closeSync(ram)));
    // Of an earlier try.
    writeSync(ram, contentOf(99), 0, PAGE_BYTES, 0);
    const block: RamBlock = {
      name: "ram0",
      lengthBytes: PAGES * PAGE_BYTES,
      hostPageBytes: PAGE_BYTES,
      path: ramPath,
      fileOffset: 0,
      ...of,
    };
    const order: number[] = [];
    let tell: ((touch: Touch) => void) | null = null;
    let isEnded = false;
    const memory: MissingMemory = {
      vcpus: Effect.succeed(1),
      touches: (touched) =>
        Effect.andThen(
          Effect.sync(() => {
            tell = touched;
          }),
          Effect.never,
        ),
      copy: (_, first, bytes) => {
        for (let n = 0; n * PAGE_BYTES < bytes.length; n++) order.push(first + n);
        writeSync(ram, bytes, 0, bytes.length, first * PAGE_BYTES);
      },
      zero: (_, first) => {
        order.push(first);
      },
      placed: () => Effect.void,
      end: Effect.sync(() => {
        isEnded = true;
      }),
      giveUp: () => Effect.void,
    };
    const guest = {
      describe: Effect.succeed({ pid: process.pid, blocks: [block] }),
      prepareForPostcopy: Effect.void,
      expectPages: () => Effect.succeed(memory),
      ...guestOf,
    } as Guest;
    const fd = openSync(path, "r");
    yield* Effect.addFinalizer(() => Effect.sync(() => closeSync(fd)));
    const progress = makeProgress();
    const restore = (restBytesPerSecond = 0) =>
      lazyRestore({
        asked: ASKED,
        place: { kind: "file", path, start: 0 },
        parameters: { "max-postcopy-bandwidth": restBytesPerSecond } as Parameters,
        settings: { runtimeDirectory: directory } as Settings,
        spec: { driver: "builtin", name: "vm1", socket: join(directory, "none"), pid: 1 } satisfies GuestSpec,
        guest,
        blocks: [block],
        progress,
        fd,
        checkpoint: readCheckpoint(fd),
      });
    return {
      restore,
      order,
      progress,
      isEnded: () => isEnded,
      touch: (page: number) => tell?.({ block: 0, page, thread: 0 }),
      listens: () => tell !== null,
      noted: () => leftPagings(directory).length,
      ram: () => readFileSync(ramPath),
    };
  });

describe("a lazy restore", () => {
  it.live("brings every page once into memory that was emptied first, and forgets its note at the end", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld();
      const bring = yield* world.restore();
      assert.strictEqual(world.noted(), 1);
      assert.isFalse(world.isEnded());
      yield* bring;
      assert.deepStrictEqual(
        [...world.order].sort((a, b) => a - b),
        STORED,
      );
      for (const page of STORED)
        assert.deepStrictEqual(
          Uint8Array.from(world.ram().subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)),
          contentOf(page),
        );
      assert.isTrue(world.isEnded());
      assert.strictEqual(world.noted(), 0);
      assert.deepInclude(world.progress, { remaining: 0, transferred: STORED.length * PAGE_BYTES });
    }),
  );

  it.live("brings what is touched first, whatever the rest waits for, and zeros where the checkpoint has nothing", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld();
      // One byte a second: the rest has gone into debt with its first chunk.
      const fiber = yield* Effect.forkScoped(yield* world.restore(1));
      while (!world.listens() || world.order.length === 0) yield* Effect.yieldNow;
      const before = world.order.length;
      assert.isBelow(before, STORED.length);
      world.touch(149);
      world.touch(180);
      while (world.order.length < before + 2) yield* Effect.sleep(1);
      assert.deepStrictEqual(world.order.slice(before), [149, 180]);
      yield* Fiber.interrupt(fiber);
      assert.strictEqual(world.noted(), 1);
    }),
  );

  it.live("is refused before the guest is touched where its memory has huge pages", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld({ hostPageBytes: 2 ** 21 });
      const error = yield* Effect.flip(world.restore());
      assert.strictEqual(error.code, "not-supported");
      assert.match(error.message, /ram0 has pages of 2097152 bytes.*without --lazy/);
      assert.deepStrictEqual([world.noted(), world.ram()[0]], [0, contentOf(99)[0]]);
    }),
  );

  it.live("is refused before the guest is touched where nobody can let it wait", () =>
    Effect.gen(function* () {
      const obstacle = new GodwitError({
        code: "not-supported",
        actor: "node",
        step: "prepare QEMU for a postcopy",
        reason: "QEMU says: Userfaultfd not available",
      });
      const world = yield* makeWorld({}, { prepareForPostcopy: Effect.fail(obstacle) });
      const error = yield* Effect.flip(world.restore());
      assert.strictEqual(error.code, "not-supported");
      assert.match(error.message, /Userfaultfd not available: restore without --lazy/);
      assert.deepStrictEqual([world.noted(), world.ram()[0]], [0, contentOf(99)[0]]);
    }),
  );
});

describe("a lazy restore whose loader has died", () => {
  it.live("before its guest was claimed ends it, once nobody can claim it late, and says so", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const block = { name: "ram0", lengthBytes: 2 ** 21, hostPageBytes: PAGE_BYTES, path: "", fileOffset: 0 };
      const started = yield* Effect.acquireRelease(startBuiltinIncoming("vm1", [block], directory), (spec) =>
        Effect.ignore(Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.discard))),
      );
      const { pid, blocks } = yield* Effect.flatMap(openGuest(started), (guest) => guest.describe);
      const registry = openRegistry(directory);
      registry.put({ ...started, moving: "arriving", epoch: 5 });
      const facts = {
        asked: ASKED,
        startedAt: 0,
        memory: memoryOf({ pid, blocks }),
        place: { path: join(directory, "none"), start: 0 },
        checkpoint: { device: "1", inode: "1", bytes: 1, fingerprint: 1 },
        restBytesPerSecond: 0,
      };
      notePaging(directory, facts);
      const written: number[] = [];
      const record = { state: "source", epoch: 4, node: "a", open: false } as OwnershipRecord;
      const register: OwnershipRegister = {
        read: () => Effect.succeed({ record, revision: 7 }),
        write: (_, __, revision) => Effect.sync(() => ({ revision: written.push(revision) })),
      };
      const settings = { node: "b", incarnation: "b".repeat(16), runtimeDirectory: directory } as Settings;
      let isSettled = false;
      const goOn = goOnRestoring(facts, { settings, registry, register }, makeProgress(), () => {
        isSettled = true;
      });
      const error = yield* Effect.flip(goOn);
      assert.match(error.message, /ended before guest vm1 was claimed; restore it again/);
      assert.deepStrictEqual(written, [7]);
      assert.isFalse(isSettled);
      assert.strictEqual(yield* lookAt(started), "gone");
      assert.deepStrictEqual([leftPagings(directory), registry.list()], [[], []]);
    }),
  );
});
