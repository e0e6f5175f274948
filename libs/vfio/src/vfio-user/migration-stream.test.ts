import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { SMALL_WRITE_BYTES } from "./connection.ts";
import { HEADER_BYTES } from "./header.ts";

import { encodeReply } from "./reply.ts";
import { countOf, OURS, open } from "./testing/open.ts";
import type { TestServer } from "./testing/server.ts";

describe("the stream", () => {
  it.live("is read by the size a reply names, not by the length of its message", () =>
    Effect.gen(function* () {
      const { device } = yield* open({
        answer: (request, { header, socket }) => {
          if (request.kind !== "mig-data-read") return false;
          const frame = encodeReply(header.id, {
            kind: "mig-data-read",
            data: new Uint8Array(request.size).fill(1),
          });
          new DataView(frame.buffer).setUint32(HEADER_BYTES + 4, 10, true);
          socket.write(frame);
          return true;
        },
      });
      const into = new Uint8Array(100_000);
      assert.strictEqual(yield* device.read(into), 10);
      assert.strictEqual(into.indexOf(0), 10);
    }),
  );

  it.live("is asked for by at most a transfer, and a device that gives more is not believed", () =>
    Effect.gen(function* () {
      const { server, device } = yield* open({
        capabilities: '{"capabilities":{"max_data_xfer_size":4096}}',
        answer: (request, { reply }) => {
          if (request.kind !== "mig-data-read") return false;
          reply({ kind: "mig-data-read", data: new Uint8Array(request.size === 100 ? 101 : request.size) });
          return true;
        },
      });
      assert.strictEqual(yield* device.read(new Uint8Array(1024 * 1024)), 4096);
      assert.deepInclude(server.requests.at(-1), { kind: "mig-data-read", size: 4096 });
      assert.strictEqual((yield* Effect.flip(device.read(new Uint8Array(0)))).errno, "EINVAL");
      assert.strictEqual((yield* Effect.flip(device.read(new Uint8Array(100)))).errno, "EPROTO");
    }),
  );

  const content = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 7) & 0xff);
  const written = (server: TestServer) =>
    server.requests.flatMap((request) => (request.kind === "mig-data-write" ? [request.data] : []));

  it.live("is written to a foreign server in small frames, each awaited", () =>
    Effect.gen(function* () {
      const { server, device } = yield* open();
      const before = server.chunkBytes.length;
      yield* device.write(content);
      assert.deepStrictEqual(
        written(server).map(({ length }) => length),
        [SMALL_WRITE_BYTES, SMALL_WRITE_BYTES, SMALL_WRITE_BYTES, 100_000 - 3 * SMALL_WRITE_BYTES],
      );
      // Each frame lay in the socket whole when the server looked.
      assert.strictEqual(server.chunkBytes.length - before, 4);
      assert.deepStrictEqual(Buffer.concat(written(server)), Buffer.from(content));
      yield* device.write(new Uint8Array(0));
      assert.strictEqual(written(server).length, 4);
    }),
  );

  it.live("is written to a server that takes whole frames at once", () =>
    Effect.gen(function* () {
      const { server, device } = yield* open({ capabilities: OURS });
      yield* device.write(content);
      assert.deepStrictEqual(written(server), [content]);
    }),
  );

  it.live("stops at the first write that is refused", () =>
    Effect.gen(function* () {
      const { server, device } = yield* open({
        answer: (request, { refuse }) => {
          if (request.kind === "mig-data-write") refuse(14);
          return request.kind === "mig-data-write";
        },
      });
      assert.deepInclude(yield* Effect.flip(device.write(content)), { operation: "write", errno: "EFAULT" });
      assert.strictEqual(countOf(server, "mig-data-write"), 1);
    }),
  );

  it.live("that lost its place gives nothing more, until it begins anew", () =>
    Effect.gen(function* () {
      let silent = true;
      const { device } = yield* open(
        {
          answer: (request, { reply }) => {
            if (request.kind !== "mig-data-read" && request.kind !== "mig-data-write") return false;
            if (silent) return true;
            reply(request.kind === "mig-data-read" ? { ...request, data: Uint8Array.of(1) } : { kind: request.kind });
            return true;
          },
        },
        { deviceTimeout: "500 millis" },
      );
      for (const lose of [device.read(new Uint8Array(8)), device.write(new Uint8Array(8))]) {
        silent = true;
        assert.strictEqual((yield* Effect.flip(lose)).errno, "ETIMEDOUT");
        silent = false;
        // The stream of PRE_COPY goes on in STOP_COPY.
        yield* device.setState("PRE_COPY");
        yield* device.setState("STOP_COPY");
        const error = yield* Effect.flip(device.read(new Uint8Array(8)));
        assert.deepInclude(error, { operation: "read", errno: "EIO" });
        assert.match(error.reason, /only a new stream/);
        assert.strictEqual((yield* Effect.flip(device.write(new Uint8Array(8)))).errno, "EIO");
        yield* device.setState("RUNNING");
        assert.strictEqual(yield* device.read(new Uint8Array(8)), 1);
        yield* device.write(new Uint8Array(8));
      }
    }),
  );

  it.live("keeps its place when a read is refused, and loses it when a write is", () =>
    Effect.gen(function* () {
      let refusing = true;
      const { device } = yield* open({
        answer: (request, { reply, refuse }) => {
          if (request.kind !== "mig-data-read" && request.kind !== "mig-data-write") return false;
          if (refusing) refuse(5);
          else
            reply(request.kind === "mig-data-read" ? { ...request, data: Uint8Array.of(1) } : { kind: request.kind });
          return true;
        },
      });
      assert.deepInclude(yield* Effect.flip(device.read(new Uint8Array(8))), { operation: "read", errno: "EIO" });
      refusing = false;
      assert.strictEqual(yield* device.read(new Uint8Array(8)), 1);
      refusing = true;
      yield* Effect.flip(device.write(new Uint8Array(8)));
      refusing = false;
      assert.match((yield* Effect.flip(device.write(new Uint8Array(8)))).reason, /only a new stream/);
    }),
  );
});
