import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import type { ReturnMessage } from "./return-path.ts";
import { connectStream } from "./stream-connection.ts";

const PONG_7 = Buffer.from("0002000400000007", "hex");
const FAILED = Buffer.from("0001000400000001", "hex");

/** A QEMU that does with its connection what `meets` says. */
const qemu = (meets: (socket: Socket) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly path: string; readonly close: () => void }>((resume) => {
      const directory = mkdtempSync(join(tmpdir(), "godwit-stream-"));
      const path = join(directory, "migration");
      const server = createServer((socket) => {
        socket.on("error", () => {});
        meets(socket);
      });
      const close = () => {
        server.close();
        rmSync(directory, { recursive: true });
      };
      server.listen(path, () => resume(Effect.succeed({ path, close })));
    }),
    ({ close }) => Effect.sync(close),
  ).pipe(Effect.map(({ path }) => path));

const isPong = (message: ReturnMessage): boolean => message.kind === "pong" && message.ping === 7;

describe("a connection to a QEMU that listens for a migration", () => {
  it.live("hands on what QEMU says, and waits for what is wanted", () =>
    Effect.gen(function* () {
      const path = yield* qemu((socket) => socket.on("data", () => socket.write(PONG_7)));
      const heard: ReturnMessage[] = [];
      const connection = yield* connectStream(path, (message) => heard.push(message));
      assert.strictEqual(connection.pid, process.pid);
      const pong = connection.awaiting("a pong", isPong, "5 seconds");
      connection.send(Buffer.from("x"));
      // It counts also when nobody waits yet.
      yield* Effect.sleep(50);
      assert.deepStrictEqual(yield* pong, { kind: "pong", ping: 7 });
      assert.deepStrictEqual(heard, [{ kind: "pong", ping: 7 }]);
    }),
  );

  it.live("says that nothing came in time", () =>
    Effect.gen(function* () {
      const connection = yield* connectStream(yield* qemu(() => {}), () => {});
      const error = yield* Effect.flip(connection.awaiting("the answer to all questions", isPong, "20 millis"));
      assert.include(error.reason, "the answer to all questions did not come within 20 millis");
    }),
  );

  it.live("ends no wait well when QEMU fails or goes", () =>
    Effect.gen(function* () {
      for (const last of [FAILED, Buffer.alloc(0), Buffer.from("ffff0000", "hex")]) {
        const path = yield* qemu((socket) => socket.end(last));
        const connection = yield* connectStream(path, () => {});
        const error = yield* Effect.flip(connection.awaiting("a pong", isPong, "5 seconds"));
        assert.strictEqual(error.code, "device-state-failed");
        yield* connection.ended;
        assert.isFalse(connection.isOpen());
        assert.throws(() => connection.send(PONG_7), /EPIPE/);
        assert.strictEqual((yield* Effect.flip(connection.awaiting("a pong", isPong, "5 seconds"))).code, error.code);
      }
    }),
  );

  it.live("is refused where nobody listens", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* Effect.flip(connectStream("/nonexistent", () => {}))).code, "device-state-failed");
    }),
  );
});
