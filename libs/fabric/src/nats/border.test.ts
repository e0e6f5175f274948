import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { type ServiceInfo, Svcm } from "@nats-io/services";
import { connect } from "@nats-io/transport-node";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bytes, take, text } from "../conformance/messages.ts";
import { joinNats, run, startTestNats } from "../conformance/nats-world.ts";
import type { LinkEvent } from "../fabric.ts";
import { CONNECT_TIMEOUT_MS } from "./connection.ts";
import { isSupportedVersion } from "./version.ts";

/** A TCP server that greets as `greet` says, for the life of the scope. */
const listen = (greet: (socket: Socket) => void) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets = new Set<Socket>();
      const listener = createServer((socket) => {
        sockets.add(socket);
        socket.on("error", () => {});
        greet(socket);
      });
      listener.listen(0, "127.0.0.1");
      await once(listener, "listening");
      return { listener, sockets, url: `nats://127.0.0.1:${(listener.address() as AddressInfo).port}` };
    }),
    ({ listener, sockets }) =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy();
        listener.close();
      }),
  );

describe("connecting", () => {
  it("a server that is too old is refused, with its version", () =>
    run(
      Effect.gen(function* () {
        const { url } = yield* listen((socket) => {
          const info = { server_id: "X", version: "2.9.10", proto: 1, max_payload: 1_048_576, headers: true };
          socket.write(`INFO ${JSON.stringify(info)}\r\n`);
          socket.on("data", (data) => {
            if (data.includes("PING")) socket.write("PONG\r\n");
          });
        });
        const error = yield* Effect.flip(joinNats(url, "alice"));
        expect(error).toMatchObject({ code: "nats-too-old", retryable: false });
        expect(error.reason).toContain("2.9.10");
      }),
    ));

  it("versions are compared by number, not by letter", () => {
    expect(["2.10.23", "2.10.100", "2.12.3", "3.0.0", "v2.15.1-RC.1"].map(isSupportedVersion)).toEqual(
      Array(5).fill(true),
    );
    expect(["2.9.99", "2.10.22", "1.99.99", "", "dev"].map(isSupportedVersion)).toEqual(Array(5).fill(false));
  });

  it("nobody listening is unreachable at once, and silence within the connect timeout", () =>
    run(
      Effect.gen(function* () {
        const { url: silent } = yield* listen(() => {});
        const { url: gone } = yield* Effect.scoped(listen(() => {}));
        const startedMs = performance.now();
        for (const servers of [gone, silent, `${silent},${silent.replace("127.0.0.1", "127.0.0.2")},${gone}`]) {
          const error = yield* Effect.flip(joinNats(servers, "alice"));
          expect(error).toMatchObject({ code: "nats-unreachable", retryable: true });
        }
        expect(performance.now() - startedMs).toBeLessThan(3 * CONNECT_TIMEOUT_MS);
      }),
    ));

  it("a server without JetStream carries messages, and says so when a bucket is opened", () =>
    run(
      Effect.gen(function* () {
        const { server } = yield* Effect.acquireRelease(
          Effect.promise(() => startTestNats({ jetstream: false })),
          ({ close }) => Effect.promise(close),
        );
        const fabric = yield* joinNats(server.url, "alice");
        const error = yield* Effect.flip(fabric.bucket("own"));
        expect(error).toMatchObject({ code: "nats-no-jetstream", retryable: false });
      }),
    ));

  it("credentials: wrong ones are refused, and what they do not permit is told", () =>
    run(
      Effect.gen(function* () {
        const permissions = '{ publish: { deny: ["secret.>"] }, subscribe: { deny: ["secret.>"] } }';
        const { server } = yield* Effect.acquireRelease(
          Effect.promise(() =>
            startTestNats({
              config: `authorization { users: [ { user: "al:ice", password: "p@ss", permissions: ${permissions} } ] }`,
            }),
          ),
          ({ close }) => Effect.promise(close),
        );
        const as = (login: string) => server.url.replace("nats://", `nats://${login}@`);
        const refused = yield* Effect.flip(joinNats(as("alice:wrong"), "alice"));
        expect(refused.code).toBe("nats-denied");
        expect(refused.message).not.toContain("wrong");

        const fabric = yield* joinNats(as("al%3Aice:p%40ss"), "alice");
        const link = yield* fabric.link;
        const unasked = yield* Effect.flip(fabric.request("secret.x", bytes(""), { timeoutMs: 5_000 }));
        expect(unasked).toMatchObject({ code: "nats-denied" });
        const subscription = yield* fabric.subscribe("secret.y", { capacity: 1 });
        expect(yield* Effect.flip(subscription.takeAll)).toMatchObject({ code: "nats-denied" });
        yield* link.takeAll;
        fabric.publish("secret.z", bytes(""));
        const [told] = yield* link.takeAll;
        expect(told).toMatchObject({ _tag: "Denied", plane: "control" } satisfies Partial<LinkEvent>);
        // What is permitted goes on.
        const open = yield* fabric.subscribe("open", { capacity: 1 });
        fabric.publish("open", bytes(""));
        yield* take(open, 1);
      }),
    ));
});

describe("on a real server", () => {
  let nats: Awaited<ReturnType<typeof startTestNats>>;
  beforeAll(async () => {
    nats = await startTestNats();
  });
  afterAll(() => nats.close());

  it("garbage on the presence subjects is counted and does not deafen the watcher", () =>
    run(
      Effect.gen(function* () {
        const fabric = yield* joinNats(nats.server.url, "alice");
        const news = yield* fabric.watch({});
        const garbage = ["", "{", "null", "[]", '{"state":"up"}', '{"state":"up","incarnation":7,"startedAtMs":"x"}'];
        for (const words of [...garbage, "x".repeat(10_000)]) {
          fabric.publish("godwit.presence.member.r.n.i", bytes(words));
        }
        fabric.publish("godwit.presence.member.r.n.$", bytes('{"state":"up","incarnation":"i","startedAtMs":1}'));
        const member = { role: "r", node: "n", id: "i", incarnation: "i1" };
        yield* fabric.announce(member);
        expect(yield* news.takeAll).toMatchObject([{ _tag: "Up", member }]);
        expect(fabric.counters().malformed).toBe(8);
      }),
    ));

  it("a payload overwritten in the tick of its publish arrives overwritten; from the next tick on it is safe", () =>
    run(
      Effect.gen(function* () {
        const fabric = yield* joinNats(nats.server.url, "alice");
        const subscription = yield* fabric.subscribe("buffer", { capacity: 4 });
        const buffer = bytes("first");
        fabric.publish("buffer", buffer);
        buffer.set(bytes("FIRST"));
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)));
        fabric.publish("buffer", buffer);
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)));
        buffer.set(bytes("later"));
        const messages = yield* take(subscription, 2);
        expect(messages.map((message) => text(message.data))).toEqual(["FIRST", "FIRST"]);
      }),
    ));

  it("a slow consumer keeps its capacity of messages, whatever is sent to it, and its connection", () =>
    run(
      Effect.gen(function* () {
        const [alice, bob] = [yield* joinNats(nats.server.url, "alice"), yield* joinNats(nats.server.url, "bob")];
        const slow = yield* bob.subscribe("slow", { capacity: 8, plane: "bulk" });
        const end = yield* bob.subscribe("end", { capacity: 1, plane: "bulk" });
        const payload = new Uint8Array(65_536);
        // What a slow machine reads between two heartbeats.
        const count = 300;
        for (let i = 0; i < count; i++) {
          alice.publish("slow", payload, "bulk");
          if (i % 50 === 0) yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)));
        }
        alice.publish("end", bytes(""), "bulk");
        yield* take(end, 1);
        expect(slow.dropped()).toBe(count - 8);
        expect((yield* slow.takeAll).length).toBe(8);
      }),
    ));

  it("a request overtakes bulk, because that has a connection of its own", () =>
    run(
      Effect.gen(function* () {
        const [alice, bob] = [yield* joinNats(nats.server.url, "alice"), yield* joinNats(nats.server.url, "bob")];
        const handle = (data: Uint8Array) => Effect.succeed(data);
        yield* bob.serve({
          name: "echo",
          version: "1.0.0",
          description: "",
          endpoints: [{ name: "echo", subject: "echo", handle }],
        });
        const payload = new Uint8Array(262_144);
        const count = 128;
        /** How many bulk messages had arrived when the request was answered. */
        const arrivedAtAnswer = Effect.fnUntraced(function* (plane: "control" | "bulk") {
          const subscription = yield* bob.subscribe(`bulk.${plane}`, { capacity: count, plane });
          for (let i = 0; i < count; i++) alice.publish(`bulk.${plane}`, payload, plane);
          yield* alice.request("echo", bytes(""), { timeoutMs: 30_000 });
          const arrived = yield* subscription.takeAll.pipe(
            Effect.timeoutOption("1 millis"),
            Effect.map((taken) => (taken._tag === "Some" ? taken.value.length : 0)),
          );
          yield* take(subscription, count - arrived);
          return arrived;
        });
        expect(yield* arrivedAtAnswer("control")).toBe(count);
        expect(yield* arrivedAtAnswer("bulk")).toBeLessThan(count);
      }),
    ));

  it("a service is a NATS micro service: `nats micro ls` and `nats micro info` see it", () =>
    run(
      Effect.gen(function* () {
        const fabric = yield* joinNats(nats.server.url, "alice");
        const handle = (data: Uint8Array) => Effect.succeed(data);
        yield* fabric.serve({
          name: "godwit-coordinator",
          version: "0.1.0",
          description: "decides",
          endpoints: [
            { name: "migrate", subject: "godwit.migrate", queue: "coordinators", handle },
            { name: "status", subject: "godwit.status", handle },
          ],
        });
        const [info] = yield* Effect.promise(async () => {
          const nc = await connect({ servers: nats.server.url });
          try {
            const infos: Array<ServiceInfo> = [];
            const found = await new Svcm(nc).client({ strategy: "stall", maxWait: 5_000 }).info("godwit-coordinator");
            for await (const info of found) infos.push(info);
            return infos;
          } finally {
            await nc.close();
          }
        });
        expect(info).toMatchObject({ name: "godwit-coordinator", version: "0.1.0", description: "decides" });
        expect(info?.endpoints.map(({ name, subject, queue_group }) => [name, subject, queue_group ?? ""])).toEqual([
          ["migrate", "godwit.migrate", "coordinators"],
          ["status", "godwit.status", ""],
        ]);
      }),
    ));
});
