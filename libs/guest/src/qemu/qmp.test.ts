import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Queue from "effect/Queue";
import * as Schema from "effect/Schema";
import { connectQmp } from "./qmp.ts";
import { QMP_LINE_BYTES_MAX } from "./qmp-message.ts";
import { type Command, emit, monitor, reply } from "./testing/monitor.ts";

describe("connectQmp", () => {
  it.live("greets, says whose process it is, and reads an answer by its schema", () =>
    Effect.gen(function* () {
      const qmp = yield* connectQmp(yield* monitor((socket, command) => reply(socket, command, { running: true })));
      assert.deepStrictEqual(qmp.version, { major: 8, minor: 2, micro: 0, package: "" });
      assert.strictEqual(qmp.peer.pid, process.pid);
      const answer = yield* qmp.execute("query-status", Schema.Struct({ running: Schema.Boolean }));
      assert.deepStrictEqual(answer, { running: true });
      const error = yield* Effect.flip(qmp.execute("query-status", Schema.String));
      assert.strictEqual(error.kind, "garbage");
    }),
  );

  it.live("tells a refusal with QEMU's own words, and goes on", () =>
    Effect.gen(function* () {
      const path = yield* monitor((socket, { id, execute }) =>
        socket.write(`${JSON.stringify({ id, error: { class: "CommandNotFound", desc: `no ${execute}` } })}\n`),
      );
      const qmp = yield* connectQmp(path);
      for (const command of ["one", "two"]) {
        const error = yield* Effect.flip(qmp.execute(command, Schema.Unknown));
        assert.deepInclude(error, { kind: "refused", errorClass: "CommandNotFound", reason: `no ${command}` });
      }
    }),
  );

  it.live("says that nobody is there", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(connectQmp("/nowhere/qmp"));
      assert.strictEqual(error.kind, "absent");
    }),
  );

  it.live("says that a monitor without a greeting serves somebody else", () =>
    Effect.gen(function* () {
      const path = yield* monitor(() => {}, "");
      const error = yield* Effect.flip(connectQmp(path, { timeout: "50 millis" }));
      assert.strictEqual(error.kind, "busy");
    }),
  );

  it.live("drops a peer that does not speak QMP", () =>
    Effect.gen(function* () {
      const path = yield* monitor(() => {}, "220 smtp.example.org ESMTP\n");
      const error = yield* Effect.flip(connectQmp(path));
      assert.strictEqual(error.kind, "garbage");
      assert.include(error.reason, "220 smtp.example.org");
    }),
  );

  it.live("drops the connection at the first line that is no message, and says so from then on", () =>
    Effect.gen(function* () {
      const qmp = yield* connectQmp(yield* monitor((socket) => socket.write("{]\n")));
      for (const command of ["first", "second"]) {
        const error = yield* Effect.flip(qmp.execute(command, Schema.Unknown));
        assert.strictEqual(error.kind, "garbage");
      }
      yield* qmp.ended;
    }),
  );

  it.live("takes no answer to a command of the client before it for its own", () =>
    Effect.gen(function* () {
      const left: Command[] = [];
      const path = yield* monitor((socket, command) => {
        // QEMU says what became of a command to whoever is connected by then.
        if (command.execute === "slow") left.push(command);
        else {
          for (const earlier of left) reply(socket, earlier, "slow");
          socket.write(`${JSON.stringify({ return: "of a client that numbers nothing" })}\n`);
          reply(socket, { execute: "", id: 2 }, "of a client that numbers");
          reply(socket, command, "fast");
        }
      });
      const first = Effect.scoped(
        Effect.flatMap(connectQmp(path, { timeout: "50 millis" }), (qmp) => qmp.execute("slow", Schema.String)),
      );
      assert.strictEqual((yield* Effect.flip(first)).kind, "timeout");
      const second = yield* connectQmp(path);
      assert.strictEqual(yield* second.execute("fast", Schema.String), "fast");
    }),
  );

  it.live("holds no more than the longest line allowed", () =>
    Effect.gen(function* () {
      const endless = Buffer.alloc(QMP_LINE_BYTES_MAX + 1, "x");
      const qmp = yield* connectQmp(yield* monitor((socket) => socket.write(endless)));
      const error = yield* Effect.flip(qmp.execute("query-status", Schema.Unknown));
      assert.strictEqual(error.kind, "garbage");
      assert.include(error.reason, `${QMP_LINE_BYTES_MAX} bytes`);
    }),
  );

  it.live("fails a waiting command, a later one, and the subscriptions when the connection ends", () =>
    Effect.gen(function* () {
      const qmp = yield* connectQmp(yield* monitor((socket) => socket.destroy()));
      const events = yield* qmp.events("STOP");
      assert.strictEqual((yield* Effect.flip(qmp.execute("stop", Schema.Unknown))).kind, "closed");
      assert.strictEqual((yield* Effect.flip(Queue.take(events))).kind, "closed");
      assert.strictEqual((yield* Effect.flip(qmp.execute("stop", Schema.Unknown))).kind, "closed");
      assert.strictEqual((yield* Effect.flip(Queue.take(yield* qmp.events("STOP")))).kind, "closed");
    }),
  );

  it.live("gives up on a late answer, and does not take it for the next one", () =>
    Effect.gen(function* () {
      let late: (() => void) | null = null;
      const path = yield* monitor((socket, command) => {
        if (command.execute === "slow") late = () => reply(socket, command, "slow");
        else {
          late?.();
          reply(socket, command, "fast");
        }
      });
      const qmp = yield* connectQmp(path, { timeout: "50 millis" });
      assert.strictEqual((yield* Effect.flip(qmp.execute("slow", Schema.String))).kind, "timeout");
      assert.strictEqual(yield* qmp.execute("fast", Schema.String), "fast");
    }),
  );

  it.live("hands events to those who asked for them by name", () =>
    Effect.gen(function* () {
      const path = yield* monitor((socket, command) => {
        emit(socket, "STOP", {});
        emit(socket, "MIGRATION", { status: "setup" });
        emit(socket, "MIGRATION", { status: "active" });
        reply(socket, command, {});
      });
      const qmp = yield* connectQmp(path);
      const migration = yield* qmp.events("MIGRATION");
      yield* qmp.execute("migrate", Schema.Unknown);
      assert.deepStrictEqual(yield* Queue.take(migration), { status: "setup" });
      assert.deepStrictEqual(yield* Queue.take(migration), { status: "active" });
    }),
  );

  it.live("fails a subscriber that does not keep up, rather than lose an event silently", () =>
    Effect.gen(function* () {
      const path = yield* monitor((socket, command) => {
        for (let count = 0; count < 300; count++) emit(socket, "FLOOD", { count });
        reply(socket, command, {});
      });
      const qmp = yield* connectQmp(path);
      const flood = yield* qmp.events("FLOOD");
      yield* qmp.execute("flood", Schema.Unknown);
      const takeAll = Effect.forever(Queue.take(flood));
      assert.include((yield* Effect.flip(takeAll)).reason, "256 events");
      assert.deepStrictEqual(yield* qmp.execute("again", Schema.Unknown), {});
    }),
  );
});
