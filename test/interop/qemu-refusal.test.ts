import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import { launchQemu, QemuDriver, type QemuSpec, qemuIsInstalled } from "@godwit/guest";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as Schema from "effect/Schema";
// The monitor itself is not part of what the library offers: nobody but its driver speaks QMP.
import { connectQmp } from "../../libs/guest/src/qemu/qmp.ts";
import { awaitLife, MEMORY_BYTES, moveRam, scratch, startPair, startSide } from "./qemu-pair.ts";

const suite = qemuIsInstalled() ? describe : describe.skip;
const because = qemuIsInstalled() ? "" : " (skipped: no qemu-system-x86_64 in PATH)";

const backend = (options: string) => ["-machine", "pc,memory-backend=ram0", "-object", options];

const UNMOVABLE: ReadonlyArray<[string, { memoryOptions?: string[]; moreOptions?: string[] }, RegExp]> = [
  ["has no memory backend", { memoryOptions: [] }, /RAM "pc.ram" \(memory-backend-ram, share=off\) is private/],
  [
    "has private RAM",
    { memoryOptions: backend(`memory-backend-file,id=ram0,size=${MEMORY_BYTES},mem-path=/dev/shm,share=off`) },
    /RAM "ram0" \(memory-backend-file, share=off\) is private .* start it with .*share=on/,
  ],
  [
    "has its RAM in a memfd",
    { memoryOptions: backend(`memory-backend-memfd,id=ram0,size=${MEMORY_BYTES},share=on`) },
    /memory-backend-memfd, share=on\) has no name in a file system/,
  ],
  [
    "has a device that cannot be migrated",
    { moreOptions: ["-drive", "if=none,id=n,driver=null-co,size=1M", "-device", "nvme,serial=1,drive=n"] },
    /QEMU says: .*nvme/,
  ],
];

suite(`a QEMU guest that cannot be moved${because}`, () => {
  it.live.each(UNMOVABLE)("is refused before anything is sent: it %s", ([, options, reason]) =>
    Effect.gen(function* () {
      const { guest } = yield* startSide(yield* scratch, options);
      const error = yield* Effect.flip(guest.describe);
      assert.strictEqual(error.code, "guest-not-movable");
      assert.match(error.reason, reason);
      assert.strictEqual((yield* Effect.flip(Effect.scoped(guest.track("content")))).code, "guest-not-movable");
    }),
  );

  it.live("is refused while an operator migrates it", () =>
    Effect.gen(function* () {
      const source = yield* startSide(yield* scratch);
      yield* Effect.scoped(
        Effect.gen(function* () {
          const qmp = yield* connectQmp(source.qemu.spec.qmp);
          yield* qmp.execute("migrate-set-parameters", Schema.Unknown, { "max-bandwidth": 4096 });
          yield* qmp.execute("migrate", Schema.Unknown, { uri: "exec:cat >/dev/null" });
        }),
      );
      const error = yield* Effect.flip(source.guest.describe);
      assert.strictEqual(error.code, "guest-not-movable");
      assert.match(error.reason, /a migration of its own \((setup|active)\)/);
    }),
  );
});

suite(`a QEMU's monitor${because}`, () => {
  it.live("serves one client at a time; the driver waits for its turn", () =>
    Effect.gen(function* () {
      const source = yield* startSide(yield* scratch);
      const waiting = yield* Effect.scoped(
        Effect.gen(function* () {
          const operator = yield* connectQmp(source.qemu.spec.qmp);
          const waiting = yield* Effect.forkChild(source.guest.describe, { startImmediately: true });
          yield* operator.execute("query-status", Schema.Unknown);
          assert.isUndefined(waiting.pollUnsafe());
          return waiting;
        }),
      );
      assert.strictEqual((yield* Fiber.join(waiting)).runState, "running");
    }),
  );

  it.live("has its migration settings put back after a move, on both sides", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const { source, destination } = yield* startPair(directory);
      const settings = (side: typeof source) =>
        Effect.scoped(
          Effect.gen(function* () {
            const qmp = yield* connectQmp(side.qemu.spec.qmp);
            return [
              yield* qmp.execute("query-migrate-capabilities", Schema.Unknown),
              yield* qmp.execute("query-migrate-parameters", Schema.Unknown),
            ];
          }),
        );
      yield* Effect.scoped(
        Effect.gen(function* () {
          const qmp = yield* connectQmp(source.qemu.spec.qmp);
          const capabilities = [{ capability: "multifd", state: true }];
          yield* qmp.execute("migrate-set-capabilities", Schema.Unknown, { capabilities });
          yield* qmp.execute("migrate-set-parameters", Schema.Unknown, {
            "max-bandwidth": 1_000_000,
            "tls-creds": "tls0",
          });
        }),
      );
      const before = [yield* settings(source), yield* settings(destination)];
      yield* source.guest.pause;
      yield* source.guest.saveDeviceState(join(directory, "state"));
      yield* moveRam(source, destination);
      yield* destination.guest.loadDeviceState(join(directory, "state"));
      assert.deepStrictEqual([yield* settings(source), yield* settings(destination)], before);
    }),
  );
});

suite(`launching a QEMU${because}`, () => {
  it.live("starts a destination when it is told to, not when it is opened, and refuses to start a second one", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const { qemu, guest } = yield* startSide(directory, { role: "destination", start: "later" });
      assert.strictEqual((yield* Effect.flip(guest.describe)).code, "no-such-guest");
      yield* launchQemu(qemu.spec, qemu.spec.launch!);
      assert.strictEqual((yield* guest.describe).runState, "incoming");
      const error = yield* Effect.flip(launchQemu(qemu.spec, qemu.spec.launch!));
      assert.strictEqual(error.code, "guest-exists");
    }),
  );

  it.live("tells what QEMU said when it does not start", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const spec: QemuSpec = { driver: "qemu", name: "vm1", qmp: join(directory, "vm1.qmp") };
      const launch = (command: ReadonlyArray<string>) => launchQemu(spec, command);
      const unknown = yield* Effect.flip(launch(["qemu-system-x86_64", "-machine", "abacus"]));
      assert.strictEqual(unknown.code, "guest-failed");
      assert.match(unknown.reason, /exit code 1; its log ends with: .*abacus/s);
      const missing = yield* Effect.flip(launch(["/nowhere/qemu"]));
      assert.strictEqual(missing.code, "guest-failed");
      assert.match(missing.reason, /ENOENT/);
    }),
  );

  it.live("finds no guest where nothing listens, or something else does", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const qmp = join(directory, "vm1.qmp");
      writeFileSync(qmp, "");
      const guest = yield* QemuDriver.open({ driver: "qemu", name: "vm1", qmp });
      assert.strictEqual((yield* Effect.flip(guest.describe)).code, "no-such-guest");
    }),
  );

  it.live("leaves a guest behind that outlives who opened it", () =>
    Effect.gen(function* () {
      const directory = yield* scratch;
      const source = yield* startSide(directory);
      yield* Effect.scoped(Effect.flatMap(QemuDriver.open(source.qemu.spec), (guest) => guest.describe));
      yield* awaitLife(source);
    }),
  );
});
