import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import type { Settings } from "@godwit/actor";
import {
  type GuestSpec,
  launchQemu,
  launchTestQemu,
  openGuest,
  openRegistry,
  qemuIsInstalled,
  startBuiltinIncoming,
} from "@godwit/guest";
import { PARAMETER_DEFAULTS } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as References from "effect/References";
import { connectQmp } from "../../../libs/guest/src/qemu/qmp.ts";
import { type GuestMemory, memoryOf } from "./guest-memory.ts";
import { resumable } from "./resuming.ts";
import { createSessionFile, type SessionFacts } from "./session-file.ts";

const MEMORY_BYTES = 4 * 2 ** 20;

/** A node on which a loader has died that had `spec` in hand. */
const makeNode = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync("/dev/shm/godwit-resuming-")),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true })),
  ),
  (directory) => {
    const settings = { node: "b", runtimeDirectory: directory } as Settings;
    const registry = openRegistry(directory);
    const leave = (memory: GuestMemory): void => {
      const facts = {
        ...{ migration: "0123456789abcdef", guest: "vm1", source: "a", incarnation: "f".repeat(16) },
        ...{ life: 0, epoch: 3, term: 1, memory, parameters: PARAMETER_DEFAULTS, capabilities: {} },
        offer: { version: 1, driver: "builtin", machine: "m", hypervisor: "h", running: true, blocks: [] },
      };
      createSessionFile(directory, facts as unknown as SessionFacts, 100).close();
    };
    const resumed = Effect.map(resumable(settings, registry), ({ length }) => length).pipe(
      Effect.provideService(References.MinimumLogLevel, "None"),
    );
    const files = () => readdirSync(join(directory, "incoming"));
    return { directory, registry, leave, resumed, files };
  },
);
const memoryNow = (spec: GuestSpec) =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => Effect.map(guest.describe, memoryOf)));

describe("a session that a former loader has left", () => {
  it.live("goes on with the guest it had, and with no other memory", () =>
    Effect.gen(function* () {
      const { directory, registry, leave, resumed, files } = yield* makeNode;
      const block = { name: "ram0", lengthBytes: MEMORY_BYTES, hostPageBytes: 4096, path: "", fileOffset: 0 };
      const spec = yield* Effect.acquireRelease(startBuiltinIncoming("vm1", [block], directory), (started) =>
        Effect.ignore(Effect.scoped(Effect.flatMap(openGuest(started), (guest) => guest.discard))),
      );
      registry.put({ ...spec, moving: "arriving" });
      const memory = yield* memoryNow(spec);
      leave(memory);
      assert.strictEqual(yield* resumed, 1);
      for (const other of [
        { ...memory, boot: "another" },
        { ...memory, pid: memory.pid + 1 },
        { ...memory, files: ["00:01:1"] },
      ]) {
        leave(other);
        assert.strictEqual(yield* resumed, 0);
        assert.deepStrictEqual(files(), []);
      }
    }),
  );

  it.live.skipIf(!qemuIsInstalled())("does not go on with a QEMU that was started anew on the same RAM file", () =>
    Effect.gen(function* () {
      const { directory, registry, leave, resumed } = yield* makeNode;
      const { spec } = yield* launchTestQemu({
        ...{ name: "vm1", directory, ramDirectory: directory, memoryBytes: MEMORY_BYTES, role: "destination" },
      });
      registry.put({ ...spec, moving: "arriving" });
      const memory = yield* memoryNow(spec);
      leave(memory);
      assert.strictEqual(yield* resumed, 1);
      process.kill(memory.pid, "SIGKILL");
      yield* Effect.retry(Effect.flip(Effect.scoped(connectQmp(spec.qmp))), { times: 1000 });
      yield* launchQemu(spec, spec.launch!);
      assert.deepStrictEqual((yield* memoryNow(spec)).files, memory.files);
      assert.strictEqual(yield* resumed, 0);
    }),
  );
});
