import type { Socket } from "node:net";
import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { QemuDriver } from "./driver.ts";
import { endingOfShutdown, endingOfStatus } from "./ending.ts";
import { emit, monitor, reply } from "./testing/monitor.ts";

/** A QEMU that `look` plays: it is called for each question, with its number, and answers with a run state. */
const watchMonitor = (look: (socket: Socket, count: number) => string) =>
  Effect.gen(function* () {
    let looks = 0;
    const path = yield* monitor((socket, command) =>
      reply(socket, command, { status: look(socket, ++looks), running: false }),
    );
    const guest = yield* QemuDriver.open({ driver: "qemu", name: "vm1", qmp: path });
    return { ending: guest.ending, looks: () => looks };
  });

describe("the watch of a QEMU's life", () => {
  it.live("hears that the guest shut itself down, also when the connection ends at the same moment", () =>
    Effect.gen(function* () {
      const { ending } = yield* watchMonitor((socket) => {
        setImmediate(() => {
          emit(socket, "SHUTDOWN", { guest: true, reason: "guest-shutdown" });
          socket.destroySoon();
        });
        return "running";
      });
      assert.deepStrictEqual(yield* ending, {
        how: "shutdown",
        reason: "the guest shut itself down (guest-shutdown)",
      });
    }),
  );

  it.live("hears it also when its own question is not answered any more", () =>
    Effect.gen(function* () {
      const path = yield* monitor((socket) => {
        emit(socket, "SHUTDOWN", { guest: false, reason: "host-qmp-quit" });
        socket.destroySoon();
      });
      const guest = yield* QemuDriver.open({ driver: "qemu", name: "vm1", qmp: path });
      assert.deepStrictEqual(yield* guest.ending, { how: "shutdown", reason: "QEMU was told to end (host-qmp-quit)" });
    }),
  );

  it.live("looks what stopped the guest, and finds that it panicked", () =>
    Effect.gen(function* () {
      const { ending, looks } = yield* watchMonitor((socket, count) => {
        // The first stop was a pause.
        if (count < 3) setImmediate(() => emit(socket, "STOP", {}));
        return count === 1 ? "running" : count === 2 ? "paused" : "guest-panicked";
      });
      assert.strictEqual((yield* ending).how, "crashed");
      assert.strictEqual(looks(), 3);
    }),
  );

  it.live("takes a reset for no ending", () =>
    Effect.gen(function* () {
      const { ending } = yield* watchMonitor((socket, count) => {
        setImmediate(() => {
          emit(socket, "RESET", { guest: true, reason: "guest-reset" });
          emit(socket, "POWERDOWN", {});
          if (count === 2) emit(socket, "SHUTDOWN", { guest: true, reason: "guest-shutdown" });
        });
        return "running";
      });
      assert.strictEqual((yield* ending).how, "shutdown");
    }),
  );

  it.live("goes on when the connection broke and somebody listens there", () =>
    Effect.gen(function* () {
      const { ending, looks } = yield* watchMonitor((socket, count) => {
        if (count === 1) setImmediate(() => socket.destroy());
        return count === 1 ? "running" : "shutdown";
      });
      assert.strictEqual((yield* ending).how, "shutdown");
      assert.strictEqual(looks(), 2);
    }),
  );

  it.live("is over at once where nobody listens", () =>
    Effect.gen(function* () {
      const guest = yield* QemuDriver.open({ driver: "qemu", name: "vm1", qmp: "/nowhere/qmp" });
      const ending = yield* guest.ending;
      assert.strictEqual(ending.how, "crashed");
      assert.include(ending.reason, "/nowhere/qmp");
    }),
  );

  it.live("shares its connection with what is done meanwhile, since the monitor serves one client", () =>
    Effect.gen(function* () {
      const looked = Promise.withResolvers<void>();
      const clients = new Set<Socket>();
      const path = yield* monitor((socket, command) => {
        clients.add(socket);
        reply(socket, command, { status: "paused", running: false });
        looked.resolve();
      });
      const guest = yield* QemuDriver.open({ driver: "qemu", name: "vm1", qmp: path });
      yield* Effect.forkChild(guest.ending, { startImmediately: true });
      yield* Effect.promise(() => looked.promise);
      yield* guest.pause;
      assert.strictEqual(clients.size, 1);
    }),
  );
});

describe("what QEMU says", () => {
  it.each([
    [{ guest: true, reason: "guest-shutdown" }, "shutdown", /shut itself down/],
    [{ guest: true, reason: "guest-panic" }, "crashed", /guest-panic/],
    [{ guest: false, reason: "host-signal" }, "shutdown", /told to end .host-signal/],
    [{ guest: false, reason: "host-error" }, "crashed", /host-error/],
    [{ unheard: "of" }, "shutdown", /shut down/],
  ])("with a SHUTDOWN of %j means %s", (data, how, reason) => {
    const ending = endingOfShutdown(data);
    assert.strictEqual(ending.how, how);
    assert.match(ending.reason, reason);
  });

  it.each([
    ["running", undefined],
    ["paused", undefined],
    ["inmigrate", undefined],
    ["postmigrate", undefined],
    ["finish-migrate", undefined],
    ["shutdown", "shutdown"],
    ["guest-panicked", "crashed"],
    ["internal-error", "crashed"],
    ["io-error", "crashed"],
  ])("in run state %s means %s", (status, how) => {
    assert.strictEqual(endingOfStatus(status)?.how, how);
  });
});
