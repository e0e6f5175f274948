import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import type { OwnershipRegister, Settings } from "@godwit/actor";
import { openRegistry } from "@godwit/guest";
import type { OwnershipRecord } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import * as References from "effect/References";
import * as TestClock from "effect/testing/TestClock";
import { recoverGuest } from "./recovery-run.ts";

const PID = 4711;
/** What a guest's monitor answers; null: not yet. */
type Answers = (execute: string) => unknown;
const refused = { error: { code: "guest-failed", reason: "it does not want to" } };
const description = {
  return: {
    name: "vm1",
    pid: PID,
    machine: "builtin-1",
    version: "1",
    runState: "paused",
    block: { name: "ram0", lengthBytes: 4096, path: "/dev/shm/none", address: "0" },
    userfaultfd: false,
  },
};

/** A stopped guest that an earlier life has left `switching`; returns what is written of its record. */
const recovered = (answers: Answers) =>
  Effect.gen(function* () {
    const directory = mkdtempSync("/dev/shm/godwit-recovery-");
    yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(directory, { recursive: true })));
    const socket = join(directory, "socket");
    const open = new Set<Socket>();
    const server = createServer((client) => {
      open.add(client);
      client.on("error", () => {});
      client.on("data", (line) => {
        const answer = answers(JSON.parse(String(line)).execute);
        if (answer !== null) client.end(`${JSON.stringify(answer)}\n`);
      });
    });
    yield* Effect.callback<void>((resume) => void server.listen(socket, () => resume(Effect.void)));
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const client of open) client.destroy();
        server.close();
      }),
    );
    const registry = openRegistry(directory);
    const spec = { driver: "builtin", name: "vm1", socket, pid: PID, moving: "leaving" } as const;
    registry.put(spec);
    const written: OwnershipRecord[] = [];
    const left = { state: "switching", epoch: 3, op: "left", migration: "0".repeat(16), node: "a", open: true };
    const register: OwnershipRegister = {
      read: () => Effect.succeed({ record: { ...left, wasRunning: true } as OwnershipRecord, revision: 7 }),
      write: (_guest, record) => Effect.sync(() => ({ revision: 7 + written.push(record) })),
    };
    const settings = { node: "a", incarnation: "a".repeat(16) } as Settings;
    const fiber = yield* Effect.forkScoped(recoverGuest(spec, settings, register, registry, () => Effect.void));
    // The monitor answers in its own time, whatever the clock says.
    while (fiber.pollUnsafe() === undefined) {
      yield* TestClock.adjust("500 millis");
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 2)));
    }
    yield* Fiber.join(fiber);
    return written.map(({ state, epoch, open: isOpen }) => `${state} ${epoch} ${isOpen ? "open" : "closed"}`);
  }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"));

describe("a guest that an earlier life of its sender has left stopped", () => {
  it.effect("is taken back, and its record is closed once it goes on", () =>
    Effect.gen(function* () {
      let tries = 0;
      const written = yield* recovered((execute) =>
        execute === "describe" ? description : execute !== "resume" ? null : ++tries < 3 ? refused : { return: null },
      );
      assert.deepStrictEqual(written, ["source 4 open", "source 4 closed"]);
      assert.strictEqual(tries, 3);
    }),
  );

  it.effect("leaves its record open while it does not go on: the next life must find it", () =>
    Effect.gen(function* () {
      let tries = 0;
      const written = yield* recovered((execute) => {
        if (execute === "resume") tries++;
        return execute === "describe" ? description : execute === "resume" ? refused : null;
      });
      assert.deepStrictEqual(written, ["source 4 open"]);
      assert.strictEqual(tries, 121);
    }),
  );

  it.effect("has its record closed when it has ended for good", () =>
    Effect.gen(function* () {
      const ended = { return: { how: "shutdown", reason: "it shut itself down" } };
      const written = yield* recovered((execute) =>
        execute === "describe" ? description : execute === "await-ending" ? ended : refused,
      );
      assert.deepStrictEqual(written, ["source 4 open", "source 4 closed"]);
    }),
  );
});
