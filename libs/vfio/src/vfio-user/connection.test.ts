import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import type * as Scope from "effect/Scope";
import { makeMutator, seededRandom } from "../../../protocol/src/mutation.conformance.ts";
import type { DeviceError } from "../device.ts";
import { type Connection, connectVfioUser, isRefused } from "./connection.ts";
import { COMMANDS } from "./header.ts";
import type { Reply } from "./message.ts";
import { encodeReply } from "./reply.ts";
import { type Asked, serverCommand, type TestServerOptions, testServer } from "./testing/server.ts";

const connect = (
  answer: NonNullable<TestServerOptions["answer"]>,
  timeout: "20 millis" | "60 seconds" = "60 seconds",
): Effect.Effect<Connection, DeviceError, Scope.Scope> =>
  Effect.flatMap(testServer({ answer }), ({ socketPath }) => connectVfioUser("nic0", socketPath, timeout));

const read = (connection: Connection, size: number) =>
  connection.ask({ operation: "read", request: { kind: "mig-data-read", size }, read: ({ data }) => data.slice() });
const reset = (connection: Connection) =>
  connection.ask({ operation: "reset", request: { kind: "reset" }, read: () => "done" });

const data = (bytes: number): Reply => ({ kind: "mig-data-read", data: new Uint8Array(bytes).fill(0x5a) });

describe("a request", () => {
  it.live("is answered, however the socket cuts the reply", () =>
    Effect.gen(function* () {
      const connection = yield* connect((request, { header, socket }) => {
        if (request.kind !== "mig-data-read") return false;
        const frame = encodeReply(header.id, data(request.size));
        // Inside the header, after it, inside the body.
        const cuts = [0, 7, 16, 40, frame.length];
        cuts.slice(1).forEach((end, index) => {
          setTimeout(() => socket.write(frame.subarray(cuts[index]!, end)), index * 3);
        });
        return true;
      });
      for (let round = 0; round < 3; round++) assert.strictEqual((yield* read(connection, 100)).length, 100);
      assert.strictEqual((yield* read(connection, 1024 * 1024)).length, 1024 * 1024);
    }),
  );

  it.live("that is refused names the errno, and the connection goes on", () =>
    Effect.gen(function* () {
      let errno = 0;
      const connection = yield* connect((_, { refuse }) => {
        refuse(errno);
        return true;
      });
      for (const [number, name] of [
        [22, "EINVAL"],
        [25, "ENOTTY"],
        [5, "EIO"],
      ] as const) {
        errno = number;
        const error = yield* Effect.flip(reset(connection));
        assert.deepInclude(error, { device: "nic0", operation: "reset", errno: name });
        const answer = yield* connection.tryAsk({ operation: "reset", request: { kind: "reset" }, read: () => "done" });
        assert.isTrue(isRefused(answer) && answer.errno === name);
      }
    }),
  );

  it.live("without an answer fails in time, and its late answer is nobody else's", () =>
    Effect.gen(function* () {
      const held: Asked[] = [];
      const connection = yield* connect((request, asked) => {
        if (request.kind === "mig-data-read") {
          held.push(asked);
          return true;
        }
        // The late one first, then the one that is waited for.
        held.pop()?.reply(data(7));
        return false;
      }, "20 millis");
      const error = yield* Effect.flip(read(connection, 7));
      assert.deepInclude(error, { operation: "read", errno: "ETIMEDOUT", reason: "no answer within 20ms" });
      assert.strictEqual(yield* reset(connection), "done");
      assert.strictEqual(yield* reset(connection), "done");
    }),
  );

  it.live("to a server that has stopped answering ends the connection after a few", () =>
    Effect.gen(function* () {
      const connection = yield* connect(() => true, "20 millis");
      const errors: string[] = [];
      for (let request = 0; request < 12; request++) errors.push((yield* Effect.flip(reset(connection))).errno);
      assert.deepStrictEqual(new Set(errors.slice(0, 9)), new Set(["ETIMEDOUT"]));
      assert.deepStrictEqual(new Set(errors.slice(9)), new Set(["EPIPE"]));
    }),
  );

  it.live("waits for the one before it", () =>
    Effect.gen(function* () {
      let open = 0;
      let most = 0;
      const connection = yield* connect((_, { reply }) => {
        most = Math.max(most, ++open);
        setTimeout(() => {
          open--;
          reply({ kind: "reset" });
        }, 2);
        return true;
      });
      yield* Effect.all(
        Array.from({ length: 10 }, () => reset(connection)),
        { concurrency: "unbounded" },
      );
      assert.strictEqual(most, 1);
    }),
  );
});

describe("a server that asks", () => {
  it.live("for memory is refused, and the reply that is waited for still comes", () =>
    Effect.gen(function* () {
      const server = yield* testServer({
        answer: (request, { header, socket, reply }) => {
          if (request.kind !== "mig-data-read") return false;
          socket.write(
            Buffer.concat([
              // The same id as the request: ids of the two directions have nothing to do with each other.
              serverCommand(header.id, COMMANDS["dma-write"], false),
              serverCommand(77, COMMANDS["dma-read"], true),
              serverCommand(78, COMMANDS["dma-read"], false),
            ]),
          );
          reply(data(3));
          return true;
        },
      });
      const connection = yield* connectVfioUser("nic0", server.socketPath);
      assert.strictEqual((yield* read(connection, 3)).length, 3);
      yield* reset(connection);
      assert.deepStrictEqual(
        server.replies.map(({ command, errno }) => [command, errno]),
        [
          [COMMANDS["dma-write"], 95],
          [COMMANDS["dma-read"], 95],
        ],
      );
    }),
  );
});

describe("a server that means harm", () => {
  it.live("and asks without reading the answers loses the connection before they fill the memory", () =>
    Effect.gen(function* () {
      const connection = yield* connect((_, { socket }) => {
        socket.pause();
        const questions = Buffer.concat(
          Array.from({ length: 200_000 }, (_, id) => serverCommand(id & 0xffff, 12, false)),
        );
        socket.write(questions);
        return true;
      });
      const error = yield* Effect.flip(reset(connection));
      assert.strictEqual(error.errno, "EPROTO");
      assert.match(error.reason, /does not read the answers/);
    }),
  );

  it.live("and answers with broken replies gets an error at most, in time", () =>
    Effect.gen(function* () {
      const random = seededRandom(11);
      const corpus = [data(40), { kind: "reset" }, { kind: "error", command: 17, errno: 22 }] as const;
      const mutate = makeMutator(
        corpus.map((reply) => encodeReply(1, reply)),
        random,
      );
      const server = yield* testServer({
        answer: (_, { socket }) => {
          socket.write(mutate());
          return true;
        },
      });
      const endings = new Map<string, number>();
      for (let run = 0; run < 300; run++) {
        const ending = yield* Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* connectVfioUser("nic0", server.socketPath, "10 millis");
            return yield* read(connection, 40).pipe(
              Effect.map(() => "answered"),
              Effect.catch((error) => Effect.succeed(error.errno)),
            );
          }),
        );
        endings.set(ending, (endings.get(ending) ?? 0) + 1);
      }
      for (const ending of ["answered", "EPROTO", "ETIMEDOUT"]) assert.isAbove(endings.get(ending) ?? 0, 5, ending);
    }),
  );
});

describe("a connection", () => {
  it.live("to nobody says so", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(connectVfioUser("nic0", "/nowhere/device"));
      assert.deepInclude(error, { operation: "connect", errno: "ENOENT" });
    }),
  );

  it.live("that ends fails what is waited for, and whatever is asked later", () =>
    Effect.gen(function* () {
      const connection = yield* connect((_, { socket }) => {
        socket.destroy();
        return true;
      });
      for (let request = 0; request < 2; request++) {
        const error = yield* Effect.flip(reset(connection));
        assert.deepInclude(error, { errno: "EPIPE", reason: "the server ended the connection" });
      }
    }),
  );

  it.live("that ends inside a message says so", () =>
    Effect.gen(function* () {
      const connection = yield* connect((_, { header, socket }) => {
        socket.end(encodeReply(header.id, data(100)).subarray(0, 60));
        return true;
      });
      const error = yield* Effect.flip(read(connection, 100));
      assert.deepInclude(error, {
        errno: "EPIPE",
        reason: "the server ended the connection in the middle of a message",
      });
    }),
  );

  const garbage: ReadonlyArray<[string, (asked: Asked) => void, RegExp]> = [
    ["is no message at all", ({ socket }) => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n"), /a message of/],
    [
      "answers what nobody asked",
      ({ header, socket }) => socket.write(encodeReply(header.id + 1, data(1))),
      /not asked/,
    ],
    ["answers another command", ({ reply }) => reply({ kind: "dma-map" }), /dma-map where another belongs/],
    ["is too short", ({ header, socket }) => socket.write(shortReply(header.id)), /mig-data-read with 0 bytes/],
  ];
  for (const [what, answer, reason] of garbage) {
    it.live(`ends at a reply that ${what}`, () =>
      Effect.gen(function* () {
        const connection = yield* connect((_, asked) => {
          answer(asked);
          return true;
        });
        const error = yield* Effect.flip(read(connection, 1));
        assert.strictEqual(error.errno, "EPROTO");
        assert.match(error.reason, reason);
        assert.strictEqual((yield* Effect.flip(reset(connection))).errno, "EPROTO");
      }),
    );
  }

  it.live("is closed with its scope, whoever still waits", () =>
    Effect.gen(function* () {
      const server = yield* testServer({ answer: () => true });
      const waiting = yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connectVfioUser("nic0", server.socketPath);
          const fiber = yield* Effect.forkDetach(Effect.flip(reset(connection)), { startImmediately: true });
          yield* Effect.sleep("20 millis");
          assert.strictEqual(server.connectionCount(), 1);
          return fiber;
        }),
      );
      assert.deepInclude(yield* Fiber.join(waiting), { errno: "EPIPE", reason: "the connection was closed" });
      while (server.connectionCount() > 0) yield* Effect.sleep("5 millis");
    }),
  );
});

/** A whole frame whose body is missing. */
const shortReply = (id: number): Uint8Array => {
  const frame = encodeReply(id, { kind: "reset" });
  new DataView(frame.buffer).setUint16(2, COMMANDS["mig-data-read"], true);
  return frame;
};
