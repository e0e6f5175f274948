import { once } from "node:events";
import { createServer } from "node:net";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import { describe, expect, it } from "vitest";
import { readThreadStats } from "../../../host/src/process-state.ts";
import { bytes, take, text } from "../conformance/messages.ts";
import { announceInProcess, joinNats, makeBuckets, run, startTestNats } from "../conformance/nats-world.ts";
import { type LinkEvent, type News, SILENT_MS } from "../fabric.ts";
import { startNats } from "../local-nats.ts";

/** A server of the test's own, which the test kills, stops and starts again on the same port and store. */
const ownServer = Effect.acquireRelease(
  Effect.promise(() => startTestNats()),
  (nats) => Effect.promise(() => nats.close()),
).pipe(
  Effect.flatMap(({ server, storeDir }) =>
    Effect.map(
      Effect.acquireRelease(Effect.succeed({ running: server }), (holder) =>
        Effect.promise(() => holder.running.stop()),
      ),
      (holder) => ({
        url: server.url,
        port: server.port,
        kill: Effect.promise(() => holder.running.kill()),
        restart: Effect.promise(async () => {
          holder.running = await startNats({ storeDir, port: server.port });
        }),
        pause: Effect.promise(() => stop(holder.running.pid)),
        resume: Effect.sync(() => process.kill(holder.running.pid, "SIGCONT")),
      }),
    ),
  ),
);

/** Stops a process, and waits until it stands still: a signal is only on its way when `kill` returns. */
const stop = async (pid: number): Promise<void> => {
  process.kill(pid, "SIGSTOP");
  while (readThreadStats(pid).some(({ state }) => state !== "T")) await new Promise(setImmediate);
};

/** Waits until both planes have told of it. */
const both = Effect.fnUntraced(function* (news: News<LinkEvent>, tag: LinkEvent["_tag"]) {
  const planes = new Set<string>();
  while (planes.size < 2) {
    for (const event of yield* news.takeAll) if (event._tag === tag) planes.add(event.plane);
  }
});

describe("a server that goes away", () => {
  it("what is published without a link is dropped, told by the link's news, and never sent later", () =>
    run(
      Effect.gen(function* () {
        const server = yield* ownServer;
        const fabric = yield* joinNats(server.url, "alice");
        const link = yield* fabric.link;
        const subscription = yield* fabric.subscribe("talk", { capacity: 100 });
        fabric.publish("talk", bytes("before"));
        yield* take(subscription, 1);

        yield* server.kill;
        yield* both(link, "Disconnected");
        expect(fabric.publish("talk", bytes("lost"))).toBe(false);
        // Too large: the server would cut the connection for it, and a client without one does not know the limit.
        expect(fabric.publish("talk", new Uint8Array(fabric.maxPayloadBytes + 1))).toBe(false);
        expect(fabric.counters().publishesDropped).toBe(2);
        expect((yield* Effect.flip(fabric.roundTrip("bulk"))).code).toBe("nats-unreachable");

        yield* server.restart;
        yield* both(link, "Reconnected");
        yield* fabric.roundTrip("bulk");
        expect(fabric.publish("talk", bytes("after"))).toBe(true);
        expect((yield* take(subscription, 1)).map((message) => text(message.data))).toEqual(["after"]);
      }),
    ));

  it("a fabric that is closed meanwhile does not wait for it", () =>
    run(
      Effect.gen(function* () {
        const server = yield* ownServer;
        yield* Effect.scoped(
          Effect.gen(function* () {
            const fabric = yield* joinNats(server.url, "alice");
            const link = yield* fabric.link;
            yield* fabric.serve({ name: "s", version: "1.0.0", description: "", endpoints: [] });
            yield* server.kill;
            yield* both(link, "Disconnected");
          }),
        ).pipe(Effect.timeout("10 seconds"));
      }),
    ));

  it("reconnecting is tried more often than the client's default of ten times", () =>
    run(
      Effect.gen(function* () {
        const server = yield* ownServer;
        const fabric = yield* joinNats(server.url, "alice");
        const link = yield* fabric.link;
        yield* server.kill;
        yield* Effect.promise(async () => {
          const attempts = 30; // Of two connections.
          let count = 0;
          const listener = createServer((socket) => {
            socket.destroy();
            count++;
            if (count === attempts) listener.close();
          });
          listener.listen(server.port, "127.0.0.1");
          await once(listener, "close");
        });
        yield* server.restart;
        yield* both(link, "Reconnected");
        const subscription = yield* fabric.subscribe("talk", { capacity: 1 });
        fabric.publish("talk", bytes(""));
        yield* take(subscription, 1);
      }),
    ));

  it("a request that has timed out while the server stood still is executed afterwards", () =>
    run(
      Effect.gen(function* () {
        const server = yield* ownServer;
        const [alice, bob] = [yield* joinNats(server.url, "alice"), yield* joinNats(server.url, "bob")];
        const executed = yield* Deferred.make<string>();
        const handle = (data: Uint8Array) => Effect.as(Deferred.succeed(executed, text(data)), data);
        yield* alice.serve({
          name: "guest",
          version: "1.0.0",
          description: "",
          endpoints: [{ name: "stop", subject: "guest.stop", handle }],
        });
        yield* server.pause;
        const error = yield* Effect.flip(bob.request("guest.stop", bytes("stop-guest"), { timeoutMs: 200 }));
        expect(error._tag).toBe("RequestTimeout");
        yield* server.resume;
        expect(yield* Deferred.await(executed)).toBe("stop-guest");
      }),
    ));

  it("a compare-and-set whose answer does not come is Unknown, and may have won", () =>
    run(
      Effect.gen(function* () {
        const server = yield* ownServer;
        yield* makeBuckets(server.url, "own");
        const bucket = yield* (yield* joinNats(server.url, "alice")).bucket("own");
        yield* server.pause;
        const outcome = yield* bucket.compareAndSet("vm1", bytes("mine"), 0);
        expect(outcome._tag).toBe("Unknown");
        yield* server.resume;
        // Settled as it must be, by another compare-and-set.
        expect((yield* bucket.compareAndSet("vm1", bytes("again"), 0))._tag).toBe("Lost");
        expect(text((yield* bucket.get("vm1"))?.value ?? bytes(""))).toBe("mine");
      }),
    ));

  it("an acknowledged record survives the server's crash, and its revision goes on", () =>
    run(
      Effect.gen(function* () {
        const server = yield* ownServer;
        const fabric = yield* joinNats(server.url, "alice");
        const link = yield* fabric.link;
        yield* makeBuckets(server.url, "own");
        const bucket = yield* fabric.bucket("own");
        const first = yield* bucket.compareAndSet("vm1", bytes("kept"), 0);
        yield* server.kill;
        yield* both(link, "Disconnected");
        expect((yield* bucket.compareAndSet("vm1", bytes("in the dark"), 1))._tag).toBe("Unknown");
        expect((yield* Effect.flip(bucket.get("vm1"))).retryable).toBe(true);
        yield* server.restart;
        yield* both(link, "Reconnected");
        const entry = yield* bucket.get("vm1");
        expect(text(entry?.value ?? bytes(""))).toBe("kept");
        expect(first).toEqual({ _tag: "Won", revision: entry?.revision });
        expect((yield* bucket.compareAndSet("vm1", bytes("next"), entry?.revision ?? 0))._tag).toBe("Won");
      }),
    ));

  it("takes nobody for dead who lives: neither when it restarts nor when it stands still", () =>
    run(
      Effect.gen(function* () {
        const server = yield* ownServer;
        const fabric = yield* joinNats(server.url, "watcher");
        const link = yield* fabric.link;
        const news = yield* fabric.watch({});
        const member = { role: "loader", node: "a", id: "l1", incarnation: "i1" };
        const other = yield* announceInProcess(server.url, member);
        expect(yield* news.takeAll).toMatchObject([{ _tag: "Up", member }]);

        yield* server.kill;
        yield* both(link, "Disconnected");
        yield* Effect.sleep(2 * SILENT_MS);
        yield* server.restart;
        yield* both(link, "Reconnected");
        yield* Effect.sleep(2 * SILENT_MS);
        yield* server.pause;
        yield* Effect.sleep(2 * SILENT_MS);
        yield* server.resume;
        const wrong = yield* news.takeAll.pipe(Effect.timeoutOption(2 * SILENT_MS));
        expect(wrong._tag).toBe("None");

        yield* other.crash;
        expect(yield* news.takeAll).toMatchObject([{ _tag: "Down", member, why: "silent" }]);
      }),
    ));
});
