import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { QemuDriver } from "./driver.ts";
import { type Command, emit, monitor, reply } from "./testing/monitor.ts";

/** A head with x-ignore-shared, and devices. */
const STATE = Buffer.from(
  "QEVM\0\0\0\x03\x07\0\0\0\x02pc\x05\x1aconfiguration/capabilities\0\0\0\x01\0\0\0\x01\x0fx-ignore-shared\x04devices",
);

/** A QEMU with one capability, which gives and takes STATE. */
const qemu = Effect.gen(function* () {
  const asked: string[] = [];
  const servers: Server[] = [];
  let isShared = false;
  let status = "running";
  /** Its settings are those of before again. */
  const isBack = yield* Deferred.make<void>();
  const completed = (socket: Socket, left: string): void => {
    status = left;
    emit(socket, "MIGRATION", { status: "completed" });
  };
  const answers: Record<string, (socket: Socket, args: Record<string, unknown>) => unknown> = {
    "query-status": () => ({ status, running: status === "running" }),
    "query-migrate": () => ({}),
    "query-migrate-capabilities": () => [{ capability: "x-ignore-shared", state: isShared }],
    "query-migrate-parameters": () => ({ "max-bandwidth": 134_217_728 }),
    "migrate-set-capabilities": (_, { capabilities }) => {
      const wasShared = isShared;
      isShared = (capabilities as ReadonlyArray<{ state: boolean }>)[0]!.state;
      if (wasShared && !isShared) Effect.runSync(Deferred.succeed(isBack, undefined));
    },
    stop: () => {
      if (status === "running") status = "paused";
    },
    migrate: (socket, { uri }) => {
      const stream = createConnection(String(uri).replace("unix:", ""));
      stream.end(isShared ? STATE : "all of RAM", () => completed(socket, "postmigrate"));
    },
    "migrate-incoming": (socket, { uri }) => {
      const server = createServer((stream) => {
        stream.on("data", () => completed(socket, "paused"));
      });
      servers.push(server);
      server.listen(String(uri).replace("unix:", ""));
    },
  };
  const path = yield* monitor((socket, command) => {
    asked.push(command.execute);
    const { arguments: args = {} } = command as Command & { readonly arguments?: Record<string, unknown> };
    reply(socket, command, answers[command.execute]?.(socket, args) ?? {});
  });
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "godwit-driver-"))),
    (made) =>
      Effect.sync(() => {
        for (const server of servers) server.close();
        rmSync(made, { recursive: true });
      }),
  );
  const guest = yield* QemuDriver.open({ driver: "qemu", name: "vm1", qmp: path });
  const incoming = Effect.sync(() => {
    status = "inmigrate";
  });
  return { guest, asked, incoming, isBack, isShared: () => isShared, at: (name: string) => join(directory, name) };
});

describe("a QEMU that is prepared for the save of its device state", () => {
  it.live("is set for it while it runs, and back at the scope's end, not in between", () =>
    Effect.gen(function* () {
      const { guest, asked, isShared, at } = yield* qemu;
      const scope = yield* Scope.make();
      yield* guest.prepareToSave.pipe(Effect.provideService(Scope.Scope, scope));
      assert.isTrue(isShared());
      const before = asked.length;
      assert.notInclude(asked, "stop");
      yield* guest.pause;
      assert.strictEqual(yield* guest.saveDeviceState(at("state")), STATE.length);
      assert.deepStrictEqual(readFileSync(at("state")), STATE);
      const meanwhile = asked.slice(before);
      // All that a guest that stands still waits for: is it running, stop, is it stopped; is it paused, migrate, has it settled.
      const looked = "query-status";
      assert.deepStrictEqual(meanwhile, [looked, "stop", looked, looked, "migrate", looked]);
      yield* Scope.close(scope, Exit.void);
      assert.isFalse(isShared());
    }).pipe(Effect.scoped),
  );

  it.live("or was not, is set for it by the save itself, and back after it", () =>
    Effect.gen(function* () {
      const { guest, isShared, at } = yield* qemu;
      yield* Effect.scoped(guest.prepareToSave);
      yield* guest.pause;
      yield* guest.saveDeviceState(at("state"));
      assert.deepStrictEqual(readFileSync(at("state")), STATE);
      assert.isFalse(isShared());
    }).pipe(Effect.scoped),
  );
});

describe("a QEMU that has taken its device state", () => {
  it.live("is set back without anybody waiting for it", () =>
    Effect.gen(function* () {
      const { guest, incoming, isBack, isShared, at } = yield* qemu;
      yield* incoming;
      writeFileSync(at("state"), STATE);
      yield* guest.loadDeviceState(at("state"));
      yield* Deferred.await(isBack);
      assert.isFalse(isShared());
    }).pipe(Effect.scoped),
  );
});
