import { assert, describe, it } from "@effect/vitest";
import { PAGE_BYTES } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import type { Touch } from "../missing-memory.ts";
import { failure } from "./failure.ts";
import { endOfStream, pagesPart, ping, ramEnd } from "./incoming-stream.ts";
import { type Line, makeMissingMemory } from "./missing-memory.ts";
import type { StreamConnection } from "./stream-connection.ts";

const PAGES = 64;
const FIRST_PING = 0x1_0001;

/** A connection that notes what is said, and ends when it is told to. */
const makeConnection = Effect.gen(function* () {
  const end = yield* Deferred.make<void>();
  const said: Buffer[] = [];
  let open = true;
  const connection: StreamConnection = {
    pid: 0,
    send: (bytes) => void said.push(Buffer.from(bytes)),
    isOpen: () => open,
    awaiting: () => Effect.succeed({ kind: "shut", error: 0 }),
    ended: Deferred.await(end),
  };
  const breaks = Effect.suspend(() => {
    open = false;
    return Deferred.succeed(end, undefined);
  });
  return { connection, said, breaks };
});

const LINE: Line = {
  vcpus: Effect.succeed(1),
  giveUp: () => Effect.void,
  rejoin: () => Effect.fail(failure("no-such-guest", "rejoin", "it is gone")),
  settle: Effect.succeed({ allMs: 3, vcpusMs: [4, 5] }),
};

const makeMemory = (line: Partial<Line> = {}, hostPages = 1) => {
  const lengthBytes = PAGES * PAGE_BYTES;
  const block = { name: "ram0", ramBlock: "/objects/ram0", path: "", fileOffset: 0, lengthBytes };
  return makeMissingMemory([{ ...block, hostPageBytes: hostPages * PAGE_BYTES }], { ...LINE, ...line });
};

const page = (value: number): Uint8Array => new Uint8Array(PAGE_BYTES).fill(value);
const word = (first: number, content: Uint8Array | null, number: number): Buffer =>
  Buffer.concat([pagesPart("/objects/ram0", first, 1, content), ping(number)]);
const request = (pageIndex: number, block = "/objects/ram0") =>
  ({ kind: "request", block, offset: pageIndex * PAGE_BYTES, length: PAGE_BYTES }) as const;

describe("the missing memory of a QEMU", () => {
  it.live("keeps what is placed before QEMU listens, and what is touched before anybody asks", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory();
      const { connection, said } = yield* makeConnection;
      memory.copy(0, 3, page(3));
      memory.hear(request(5));
      memory.hear(request(1, "pc.bios"));
      memory.hear(request(PAGES));
      memory.listensOver(connection);
      assert.deepStrictEqual(said, [word(3, page(3), FIRST_PING + 1)]);
      const touched: Touch[] = [];
      yield* Effect.forkScoped(memory.touches((touch) => touched.push(touch)));
      yield* Effect.yieldNow;
      memory.hear(request(6));
      assert.deepStrictEqual(touched, [
        { block: 0, page: 5, thread: 0 },
        { block: 0, page: 6, thread: 0 },
      ]);
      memory.zero(0, 5, 1);
      assert.deepStrictEqual(said.slice(1), [word(5, null, FIRST_PING + 2)]);
    }),
  );

  it.live("tells of a large host page once, and fills it with zeros as a whole", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory({}, 16);
      const { connection, said } = yield* makeConnection;
      memory.listensOver(connection);
      const touched: Touch[] = [];
      yield* Effect.forkScoped(memory.touches((touch) => touched.push(touch)));
      yield* Effect.yieldNow;
      memory.hear({ ...request(16), length: 16 * PAGE_BYTES });
      assert.deepStrictEqual(touched, [{ block: 0, page: 16, thread: 0 }]);
      memory.zero(0, 17, 1);
      assert.deepStrictEqual(said, [Buffer.concat([pagesPart("/objects/ram0", 16, 16, null), ping(FIRST_PING)])]);
    }),
  );

  it.live("says over another connection what its memory has not got", () =>
    Effect.gen(function* () {
      const one = yield* makeConnection;
      const other = yield* makeConnection;
      const received = [Bitmap.make(PAGES)];
      const memory = yield* makeMemory({ rejoin: () => Effect.succeed({ connection: other.connection, received }) });
      memory.listensOver(one.connection);
      yield* Effect.forkScoped(memory.touches(() => {}));
      for (const n of [1, 2, 3]) memory.copy(0, n, page(n));
      memory.hear({ kind: "pong", ping: FIRST_PING });
      // It had arrived when the connection broke; another one in a former life.
      for (const n of [1, 2, 9]) Bitmap.setRange(received[0]!, n, 1);
      yield* one.breaks;
      memory.copy(0, 4, page(4));
      while (other.said.length < 2) yield* Effect.sleep(5);
      memory.copy(0, 9, page(9));
      assert.deepStrictEqual(other.said, [word(3, page(3), FIRST_PING + 4), word(4, page(4), FIRST_PING + 5)]);
      assert.lengthOf(one.said, 3);
    }),
  );

  it.live("ends once QEMU has all that was sent", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory();
      const { connection, said } = yield* makeConnection;
      memory.listensOver(connection);
      memory.copy(0, 1, page(1));
      const ending = yield* Effect.forkScoped(memory.end);
      yield* Effect.sleep(20);
      assert.lengthOf(said, 1);
      memory.hear({ kind: "pong", ping: FIRST_PING });
      yield* Fiber.join(ending);
      assert.deepStrictEqual(said[1], Buffer.concat([ramEnd, endOfStream]));
      assert.deepStrictEqual(memory.blocktime?.(), { allMs: 3, vcpusMs: [4, 5] });
    }),
  );

  it.live("takes only so much as may wait for QEMU", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory();
      assert.throws(() => memory.copy(0, 0, new Uint8Array(65 * 1024 ** 2)), /ENOBUFS/);
    }),
  );

  it.live("says when so much of it is in place that more may follow, on another connection as well", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory();
      const one = yield* makeConnection;
      memory.listensOver(one.connection);
      yield* memory.placed(0);
      memory.copy(0, 0, new Uint8Array(2 * PAGE_BYTES));
      memory.copy(0, 2, page(2));
      yield* memory.placed(3 * PAGE_BYTES);
      const [most, all] = [
        yield* Effect.forkScoped(memory.placed(PAGE_BYTES)),
        yield* Effect.forkScoped(memory.placed(0)),
      ];
      yield* Effect.yieldNow;
      assert.isUndefined(most.pollUnsafe());
      memory.hear({ kind: "pong", ping: FIRST_PING });
      yield* Fiber.join(most);
      assert.isUndefined(all.pollUnsafe());
      // What was on its way is said again, with a ping of its own.
      memory.goesOnOver({ connection: (yield* makeConnection).connection, received: [Bitmap.make(PAGES)] });
      assert.isUndefined(all.pollUnsafe());
      memory.hear({ kind: "pong", ping: FIRST_PING + 2 });
      yield* Fiber.join(all);
    }),
  );

  it.live("tells once QEMU is gone", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory();
      const { connection, breaks } = yield* makeConnection;
      memory.listensOver(connection);
      yield* breaks;
      assert.strictEqual((yield* Effect.flip(memory.touches(() => {}))).code, "no-such-guest");
    }),
  );
});
