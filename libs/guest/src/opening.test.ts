import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import { GodwitError } from "@godwit/protocol";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import { BuiltinDriver } from "./builtin/driver.ts";
import { type BuiltinSpec, startBuiltin, startBuiltinIncoming } from "./builtin/launch.ts";
import { openDestination, openRegistered } from "./opening.ts";
import { openRegistry } from "./registry.ts";

const MEMORY_BYTES = 4 * 2 ** 20;

/** A node with nothing on it; whatever is registered in the end is discarded. */
const makeNode = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync("/dev/shm/godwit-opening-")),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })),
  );
  const registry = openRegistry(join(directory, "run"));
  const guestDirectory = join(directory, "guests");
  const discard = (spec: BuiltinSpec) =>
    Effect.scoped(Effect.flatMap(BuiltinDriver.open(spec), (guest) => guest.discard)).pipe(Effect.ignore);
  const started = new Map<number, BuiltinSpec>();
  const note = (spec: BuiltinSpec) => void started.set(spec.pid, spec);
  yield* Effect.addFinalizer(() => {
    for (const spec of registry.list()) if (spec.driver === "builtin") note(spec);
    return Effect.forEach([...started.values()], discard, { discard: true });
  });
  const start = Effect.fnUntraced(function* () {
    const spec = yield* startBuiltin({
      name: "vm1",
      memoryBytes: MEMORY_BYTES,
      vcpus: 1,
      dirtyRateBytesPerSecond: 0,
      directory: guestDirectory,
    });
    note(spec);
    registry.put(spec);
    return { spec, guest: yield* BuiltinDriver.open(spec) };
  });
  const offer = {
    name: "vm1",
    driver: "builtin" as const,
    epoch: 2,
    devices: [],
    blocks: [{ name: "ram0", lengthBytes: MEMORY_BYTES, hostPageBytes: 4096, path: "", fileOffset: 0 }],
  };
  const receive = Effect.map(openDestination(registry, offer, guestDirectory), (opened) => {
    if (opened.spec.driver === "builtin") note(opened.spec);
    return opened;
  });
  return { registry, directory, start, offer, receive, guestDirectory };
});
const hasEnded = (pid: number): Effect.Effect<void, "it lives"> =>
  Effect.suspend(() => {
    try {
      process.kill(pid, 0);
      return Effect.fail("it lives" as const);
    } catch {
      return Effect.void;
    }
  });
const pidOf = (opened: { readonly spec: object }): number => (opened.spec as BuiltinSpec).pid;
const isRefusedWith = (error: unknown, code: string): GodwitError => {
  if (!(error instanceof GodwitError)) throw new Error(`failed with ${String(error)}`);
  assert.strictEqual(error.code, code, error.message);
  return error;
};

describe("a registered guest", () => {
  it.live("is opened by its name", () =>
    Effect.gen(function* () {
      const { registry, start } = yield* makeNode;
      const { spec } = yield* start();
      const opened = yield* openRegistered(registry, "vm1");
      assert.deepStrictEqual(opened.spec, spec);
      assert.strictEqual((yield* opened.guest.describe).runState, "running");
    }),
  );

  it.live("that nobody has is told by its name", () =>
    Effect.gen(function* () {
      const { registry } = yield* makeNode;
      const error = isRefusedWith(yield* Effect.flip(openRegistered(registry, "nobody")), "no-such-guest");
      assert.include(error.reason, "nobody");
    }),
  );

  it.live("whose file is broken is a failure that names the file, and so is a name that is none", () =>
    Effect.gen(function* () {
      const { registry, directory } = yield* makeNode;
      writeFileSync(join(directory, "run", "guests", "vm1.json"), "{");
      const error = isRefusedWith(yield* Effect.flip(openRegistered(registry, "vm1")), "guest-failed");
      assert.include(error.reason, "vm1.json");
      registry.remove("vm1");
      isRefusedWith(yield* Effect.flip(openRegistered(registry, "../vm1")), "guest-failed");
    }),
  );
});

describe("a guest that shall receive a migration", () => {
  it.live("is started for it where there is none, and waits, marked as arriving", () =>
    Effect.gen(function* () {
      const { registry, receive } = yield* makeNode;
      const opened = yield* receive;
      const description = yield* opened.guest.describe;
      assert.strictEqual(description.runState, "incoming");
      assert.deepStrictEqual(
        description.blocks.map(({ name, lengthBytes }) => ({ name, lengthBytes })),
        [{ name: "ram0", lengthBytes: MEMORY_BYTES }],
      );
      assert.deepStrictEqual(registry.find("vm1"), opened.spec);
      assert.strictEqual(opened.spec.moving, "arriving");
    }),
  );

  it.live("is the one that waits already, and is not started twice", () =>
    Effect.gen(function* () {
      const { receive } = yield* makeNode;
      const first = yield* receive;
      const again = yield* receive;
      assert.strictEqual(pidOf(again), pidOf(first));
    }),
  );

  it.live("is never one that runs: it is refused and goes on running, its memory as it was", () =>
    Effect.gen(function* () {
      const { registry, start, receive } = yield* makeNode;
      const { spec, guest } = yield* start();
      const error = isRefusedWith(yield* Effect.flip(receive), "guest-exists");
      assert.include(error.reason, "running");
      assert.strictEqual((yield* guest.describe).runState, "running");
      assert.deepStrictEqual(registry.find("vm1"), spec);
    }),
  );

  it.live("is never one that somebody paused, nor one that is about to leave", () =>
    Effect.gen(function* () {
      const { registry, start, receive } = yield* makeNode;
      const { spec, guest } = yield* start();
      yield* guest.pause;
      for (const moving of [undefined, "leaving"] as const) {
        registry.put(moving === undefined ? spec : { ...spec, moving });
        isRefusedWith(yield* Effect.flip(receive), "guest-exists");
        assert.strictEqual((yield* guest.describe).runState, "paused");
      }
    }),
  );

  it.live("is a new one where an earlier attempt left a loaded one that was never handed over", () =>
    Effect.gen(function* () {
      const { registry, start, receive } = yield* makeNode;
      const { spec, guest } = yield* start();
      yield* guest.pause;
      registry.put({ ...spec, moving: "arriving" });
      const opened = yield* receive;
      assert.notStrictEqual(pidOf(opened), spec.pid);
      assert.strictEqual((yield* opened.guest.describe).runState, "incoming");
      assert.throws(() => process.kill(spec.pid, 0), /ESRCH/);
    }),
  );

  it.live("is a new one where the registered one has died", () =>
    Effect.gen(function* () {
      const { start, receive } = yield* makeNode;
      const { spec, guest } = yield* start();
      yield* guest.discard;
      const opened = yield* receive;
      assert.notStrictEqual(pidOf(opened), spec.pid);
      assert.strictEqual((yield* opened.guest.describe).runState, "incoming");
    }),
  );

  it.live("cannot be a QEMU that nobody has told us how to start: the operator is told what to do", () =>
    Effect.gen(function* () {
      const { registry, offer, guestDirectory } = yield* makeNode;
      const asked = { ...offer, driver: "qemu" as const };
      const error = isRefusedWith(
        yield* Effect.flip(openDestination(registry, asked, guestDirectory)),
        "no-such-guest",
      );
      assert.include(error.reason, "-incoming defer");
      assert.include(error.reason, "--guest vm1=qemu:");
      assert.deepStrictEqual(registry.list(), []);
    }),
  );

  it.live("starts with memory that holds nothing of an earlier guest", () =>
    Effect.gen(function* () {
      const { start, receive, guestDirectory } = yield* makeNode;
      const { guest } = yield* start();
      yield* guest.discard;
      yield* receive;
      assert.isTrue(readFileSync(join(guestDirectory, "vm1.ram0")).every((byte) => byte === 0));
    }),
  );

  it.live("that a loader had started, and did not live to see ready, leaves one process for its successor", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { registry, offer, receive, guestDirectory } = yield* makeNode;
        const spawned = yield* Deferred.make<BuiltinSpec>();
        // As the first loader does it: registered when there is a process, long before it is ready.
        yield* Effect.forkScoped(
          startBuiltinIncoming(offer.name, offer.blocks, guestDirectory, (spec) => {
            registry.put({ ...spec, moving: "arriving" });
            Deferred.doneUnsafe(spawned, Effect.succeed(spec));
          }),
        );
        const first = yield* Deferred.await(spawned);
        const opened = yield* receive;
        // Whichever of the two was first to hold the name: it is the one that is registered, and the other has ended.
        assert.strictEqual((yield* opened.guest.describe).runState, "incoming");
        assert.strictEqual((registry.find("vm1") as BuiltinSpec).pid, pidOf(opened));
        if (pidOf(opened) !== first.pid) yield* Effect.retry(hasEnded(first.pid), Schedule.spaced("20 millis"));
      }),
    ),
  );
});
